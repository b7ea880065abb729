"""The whole pipeline: seven stages, each a function of params and files.

`STAGES` is the one table of them; dvc.yaml says what each depends on and `flows/` when they run. A
stage reads files and writes files below `data/`, the same bytes whenever its inputs are the same.
It touches no network service, no registry and no clock, because DVC skips a stage whose inputs are
known and would skip such effects with it.

    python -m rag STAGE
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import IndexParams, Params

if TYPE_CHECKING:
    from pyarrow import Table

    from rag.reading.answerer import QuestionAnswerer
    from rag.records import Question


def prepare(params: Params, artifacts: Artifacts) -> None:
    """Files -> documents and questions, checked and split."""
    from rag.corpus import prepare_corpus
    from rag.records import DOCUMENTS, QUESTIONS, write_table

    corpus = prepare_corpus(artifacts.raw, params.prepare, params.seed)
    write_table(corpus.documents, DOCUMENTS, artifacts.documents)
    write_table(corpus.questions, QUESTIONS, artifacts.questions)
    lines = [json.dumps(row, sort_keys=True, ensure_ascii=False) for row in corpus.rejects]
    artifacts.rejects.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def chunk(params: Params, artifacts: Artifacts) -> None:
    """Documents -> chunks that fit the encoder."""
    from rag.corpus import chunk_documents
    from rag.records import CHUNKS, read_documents, write_table
    from rag.retrieval.encoder import Encoder

    encoder = Encoder(params.retriever, artifacts.weights_cache)
    documents = read_documents(artifacts.documents)
    chunks = chunk_documents(documents, encoder.count_tokens, params.chunk)
    write_table(chunks, CHUNKS, artifacts.chunks)


def train_retriever(params: Params, artifacts: Artifacts) -> None:
    """The encoder: as it is, or tuned on the train questions."""
    from rag.finetune.retriever import tune_retriever

    tune_retriever(params, artifacts)


def embed(params: Params, artifacts: Artifacts) -> None:
    """Chunks -> vectors; only what is new is encoded."""
    from rag.reading.answerer import load_encoder
    from rag.retrieval.embedding import embed_chunks

    embed_chunks(params, artifacts, load_encoder(artifacts, params))


def retrieve(params: Params, artifacts: Artifacts) -> None:
    """Questions -> passages; fusion chosen on dev."""
    from rag.progress import progress
    from rag.reading.answerer import load_retriever
    from rag.records import CONTEXTS, read_chunks, read_questions, write_table
    from rag.retrieval.fusion import Fusion
    from rag.retrieval.tuning import choose_fusion, gold_documents

    retriever = load_retriever(artifacts, params, fusion=Fusion())
    questions = [
        *read_questions(artifacts.questions, "train"),
        *read_questions(artifacts.questions, "dev"),
    ]
    texts = [question.text for question in questions]
    with progress("retrieve", len(texts)) as advance:
        candidates = retriever.candidates(texts, progress=advance)
    fusion, facts = choose_fusion(
        questions,
        candidates,
        read_chunks(artifacts.chunks, document_ids=gold_documents(questions)),
        retriever.passages,
        params.retrieve,
    )
    fusion = replace(fusion, reranker=retriever.reranker_sha256)
    fusion.write(artifacts.fusion, **facts)
    languages = [question.language for question in questions]
    ranked = retriever.ranked(texts, candidates, languages, params.retrieve.top_k, fusion=fusion)
    rows = [
        {"question_id": question.question_id, **vars(passage)}
        for question, passages in zip(questions, ranked, strict=True)
        for passage in passages
    ]
    write_table(rows, CONTEXTS, artifacts.contexts)
    retriever.close()


def train_reader(params: Params, artifacts: Artifacts) -> None:
    """The reader, tuned on the passages retrieved."""
    from rag.evaluation.answer_scores import exact_match, token_f1
    from rag.finetune.reader import tune_reader

    tune_reader(params, artifacts, scores={"f1": token_f1, "exact_match": exact_match})


def evaluate(params: Params, artifacts: Artifacts) -> None:
    """Tuned system and baselines on the test questions."""
    from rag.evaluation.evaluate import evaluate_systems

    evaluate_systems(params, artifacts)


@dataclass(frozen=True)
class Stage:
    """A stage's name, which is its command, its key in dvc.yaml and its task's name."""

    name: str
    run: Callable[[Params, Artifacts], None]

    @property
    def summary(self) -> str:
        """The first line of the stage's docstring."""
        return (self.run.__doc__ or "").split("\n", 1)[0]


STAGES: Sequence[Stage] = tuple(
    Stage(function.__name__, function)
    for function in (prepare, chunk, train_retriever, embed, retrieve, train_reader, evaluate)
)


def run_stage(name: str, params: Params, artifacts: Artifacts) -> None:
    """Runs one stage by its name."""
    for stage in STAGES:
        if stage.name == name:
            return stage.run(params, artifacts)
    raise RagError(f"no stage {name!r}; stages are {', '.join(stage.name for stage in STAGES)}")


def build_index(
    params: Params,
    artifacts: Artifacts,
    index: IndexParams | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> str:
    """Publishes the index of the current embeddings where params say; returns its name.

    `say` is told what a search that is not exact loses in recall.
    """
    from rag.retrieval.embeddings import read_embeddings
    from rag.retrieval.index import publish_index

    return publish_index(
        index or params.index,
        artifacts.index_folder,
        read_embeddings(artifacts.embeddings),
        artifacts.chunks,
        say=say,
    )


def predict_with(answerer: QuestionAnswerer, questions: Sequence[Question], system: str) -> Table:
    """One system's answers to these questions, scored: what the gate compares."""
    from rag.evaluation.evaluate import answer_questions
    from rag.records import PREDICTIONS, to_table

    return to_table(answer_questions(answerer, questions, system), PREDICTIONS)
