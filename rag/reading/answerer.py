"""The system that answers: a question is searched, read, and its answer checked.

`QuestionAnswerer` is what `ask`, the MLflow model and the evaluate stage all run, over a checkout
or over a release's folder, which have the same layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag.artifacts import Artifacts
from rag.corpus.text import language_of
from rag.params import IndexParams, Params
from rag.reading.abstention import checked
from rag.reading.reader import (
    Progress,
    Reader,
    load_reader,
    manifest_examples,
    manifest_query_likelihood,
    manifest_temperature,
    read_manifest,
)
from rag.records import Answer, Passage
from rag.retrieval.embeddings import VECTORS, read_embeddings, read_facts
from rag.retrieval.encoder import Encoder
from rag.retrieval.fusion import Fusion
from rag.retrieval.index import open_index, publish_index
from rag.retrieval.index_payload import Where
from rag.retrieval.rerank import load_reranker
from rag.retrieval.retriever import Retriever

System = Literal["tuned", "zero_shot", "one_shot", "closed_book", "oracle"]
#: Systems with the tuned reader, its threshold and its checks; the oracle is shown other passages.
_TUNED: tuple[System, ...] = ("tuned", "oracle")
_SHOWN_PASSAGES = 5


@dataclass(frozen=True)
class Response:
    """An answer with the passages that were found for it, best first."""

    answer: Answer
    passages: tuple[Passage, ...]


class QuestionAnswerer:
    """A retriever (None for a closed book) and a reader, with the rule for abstaining."""

    def __init__(
        self,
        retriever: Retriever | None,
        reader: Reader,
        params: Params,
        *,
        checks: bool,
        threshold: float | None = None,
    ) -> None:
        self._retriever = retriever
        self.reader = reader
        self._params = params
        self._checks = checks
        self._threshold = threshold

    @classmethod
    def load(
        cls,
        artifacts: Artifacts,
        params: Params,
        system: System = "tuned",
        *,
        index: IndexParams | None = None,
    ) -> QuestionAnswerer:
        """Opens the tuned system or one that it is compared with.

        `zero_shot` and `one_shot` have the untuned reader and none or one worked example,
        `closed_book` the untuned reader and no passages; these three answer unchecked. `oracle` is
        the tuned system, to be asked with `respond(..., given=...)`.
        """
        tuned = system in _TUNED
        manifest = read_manifest(artifacts.reader)
        shown = params.reader.examples if tuned else int(system == "one_shot")
        # Untuned, a model answers in sentences; made to copy, it scores lower (on the demo F1 3.5
        # against 12.5), and what a system is compared with is to be at its best.
        own = {} if tuned else {"verbatim": False}
        reader = load_reader(
            params.reader.model_copy(update=own),
            artifacts.weights_cache,
            artifacts.reader if tuned else None,
            prior_temperature=manifest_temperature(manifest),
            # How likely a model makes a question is weighed as was calibrated with its own weights.
            query_likelihood=manifest_query_likelihood(manifest) if tuned else 0.0,
            examples=manifest_examples(manifest, shown),
        )
        # Baselines are what the tuned system is compared with: they search as before the reader.
        end_to_end = tuned and params.reader.end_to_end is not None
        retriever = None
        if system != "closed_book":
            query_folder = artifacts.reader_query_encoder if end_to_end else None
            retriever = load_retriever(artifacts, params, index, query_folder=query_folder)
        threshold = manifest["abstain_below"] if tuned else None
        return cls(retriever, reader, params, checks=tuned, threshold=threshold)

    def respond(
        self,
        questions: Sequence[str],
        *,
        given: Mapping[int, Sequence[Passage]] | None = None,
        progress: Progress | None = None,
    ) -> list[Response]:
        """Answers with everything that was retrieved, in the order of the questions.

        `given` has, by the place of a question, the passages that are read in place of what
        retrieval finds for the others.
        """
        found = [list((given or {}).get(place, ())) for place in range(len(questions))]
        searched = [place for place in range(len(questions)) if place not in (given or {})]
        limit = max(self._params.reader.passages, _SHOWN_PASSAGES)
        own = self.search([questions[place] for place in searched], limit) if searched else []
        for place, passages in zip(searched, own, strict=True):
            found[place] = passages
        answers = self.reader.answer(questions, found, progress=progress)
        if self._checks:
            answers = [checked(answer, self._threshold) for answer in answers]
        return [
            Response(answer, tuple(passages))
            for answer, passages in zip(answers, found, strict=True)
        ]

    def answer(self, questions: Sequence[str]) -> list[Answer]:
        """One answer a question, in order."""
        return [response.answer for response in self.respond(questions)]

    def search(
        self, questions: Sequence[str], limit: int, where: Where | None = None
    ) -> list[list[Passage]]:
        """At most `limit` passages a question, best first; none for a closed book."""
        if self._retriever is None:
            return [[] for _ in questions]
        languages = [language_of(question) for question in questions]
        return self._retriever.search(questions, languages, limit, where)

    def unchecked(self) -> QuestionAnswerer:
        """The same system, which gives every answer that its reader gives."""
        return QuestionAnswerer(self._retriever, self.reader, self._params, checks=False)

    def close(self) -> None:
        """Releases the index."""
        if self._retriever is not None:
            self._retriever.close()


def load_encoder(
    artifacts: Artifacts, params: Params, *, query_folder: Path | None = None
) -> Encoder:
    """The encoder that train_retriever left; refuses one that params.yaml no longer names.

    `query_folder` has a query side that was tuned with the reader.
    """
    return Encoder(
        params.retriever,
        artifacts.weights_cache,
        folder=artifacts.retriever,
        query_folder=query_folder,
    )


def served_index(artifacts: Artifacts, params: Params) -> IndexParams:
    """Where this folder's passages are searched: in this process.

    Only a release that was too large to hold its vectors is searched where params say.
    """
    has_vectors = (artifacts.embeddings / VECTORS).is_file()
    return params.index.in_process() if has_vectors else params.index


def load_retriever(
    artifacts: Artifacts,
    params: Params,
    index: IndexParams | None = None,
    *,
    fusion: Fusion | None = None,
    query_folder: Path | None = None,
) -> Retriever:
    """A retriever over the embeddings of this folder, in `served_index` unless `index` is given.

    An index of this process is built when it is missing. `query_folder` is as in `load_encoder`.
    """
    if index is None:
        index = served_index(artifacts, params)
    if index.kind == "edge":
        publish_index(
            index,
            artifacts.index_folder,
            read_embeddings(artifacts.embeddings),
            artifacts.chunks,
        )
    chosen = fusion or Fusion.read(artifacts.fusion)
    reranker = load_reranker(
        params.retrieve.rerank,
        artifacts.weights_cache,
        # The stage that chooses the fusion is the one that pins the reranker.
        fusion=chosen if fusion is None else None,
    )
    return Retriever(
        load_encoder(artifacts, params, query_folder=query_folder),
        open_index(index, artifacts.index_folder, read_facts(artifacts.embeddings)),
        chosen,
        candidates=params.retrieve.candidates,
        reranker=reranker,
    )
