"""The system that answers: a question is searched, read, and its answer checked.

`QuestionAnswerer` is what `ask`, the MLflow model and the evaluate stage all run, over a checkout
or over a release's folder, which have the same layout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rag.artifacts import Artifacts
from rag.corpus.text import language_of
from rag.errors import ModelError
from rag.params import IndexParams, Params
from rag.reading.abstention import checked
from rag.reading.reader import Progress, Reader, load_reader, read_manifest
from rag.records import Answer, Passage, read_chunks
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.encoder import MANIFEST, Encoder
from rag.retrieval.fusion import Fusion
from rag.retrieval.index import open_index, publish_index
from rag.retrieval.retriever import Retriever

System = Literal["tuned", "zero_shot", "closed_book"]
#: The index of this process, whatever the params say: built from the embeddings in seconds.
LOCAL_INDEX = IndexParams()
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
        self._reader = reader
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
        index: IndexParams = LOCAL_INDEX,
    ) -> QuestionAnswerer:
        """Opens the tuned system or one of its baselines; the baselines answer unchecked."""
        tuned = system == "tuned"
        folder = artifacts.reader if tuned else None
        reader = load_reader(params.reader, artifacts.weights_cache, folder)
        retriever = None if system == "closed_book" else load_retriever(artifacts, params, index)
        threshold = read_manifest(artifacts.reader)["abstain_below"] if tuned else None
        return cls(retriever, reader, params, checks=tuned, threshold=threshold)

    def respond(
        self, questions: Sequence[str], *, progress: Progress | None = None
    ) -> list[Response]:
        """Answers with everything that was retrieved, in the order of the questions."""
        found = self.search(questions, max(self._params.reader.passages, _SHOWN_PASSAGES))
        answers = self._reader.answer(questions, found, progress=progress)
        if self._checks:
            answers = [checked(answer, self._threshold) for answer in answers]
        return [
            Response(answer, tuple(passages))
            for answer, passages in zip(answers, found, strict=True)
        ]

    def answer(self, questions: Sequence[str]) -> list[Answer]:
        """One answer a question, in order."""
        return [response.answer for response in self.respond(questions)]

    def search(self, questions: Sequence[str], limit: int) -> list[list[Passage]]:
        """At most `limit` passages a question, best first; none for a closed book."""
        if self._retriever is None:
            return [[] for _ in questions]
        languages = [language_of(question) for question in questions]
        return self._retriever.search(questions, languages, limit)

    def close(self) -> None:
        """Releases the index."""
        if self._retriever is not None:
            self._retriever.close()


def load_encoder(artifacts: Artifacts, params: Params) -> Encoder:
    """The encoder that train_retriever left; refuses one that params.yaml no longer names."""
    manifest = json.loads((artifacts.retriever / MANIFEST).read_text(encoding="utf-8"))
    encoder = Encoder(params.retriever, artifacts.weights_cache)
    if encoder.weights.sha256 != manifest["sha256"]:
        raise ModelError(
            f"retriever {params.retriever.model} has SHA-256 {encoder.weights.sha256}, the stage "
            f"train_retriever left one with {manifest['sha256']}; run: ragloop run"
        )
    return encoder


def load_retriever(
    artifacts: Artifacts,
    params: Params,
    index: IndexParams = LOCAL_INDEX,
    *,
    fusion: Fusion | None = None,
) -> Retriever:
    """A retriever over the embeddings of this folder; a local index is built when it is missing."""
    embeddings = read_embeddings(artifacts.embeddings)
    chunks = read_chunks(artifacts.chunks)
    if index.kind == "edge":
        publish_index(index, artifacts.index_folder, embeddings, chunks)
    return Retriever(
        load_encoder(artifacts, params),
        open_index(index, artifacts.index_folder, embeddings),
        chunks,
        fusion or Fusion.read(artifacts.fusion),
        candidates=params.retrieve.candidates,
        average_tokens=embeddings.average_tokens,
    )
