"""The train_reader stage's work: examples, the loop, the threshold for abstaining, the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rag.artifacts import Artifacts
from rag.finetune.examples import (
    ReadingExample,
    as_passage,
    evenly,
    gold_passages,
    reading_examples,
)
from rag.finetune.history import training_log
from rag.finetune.loop import Trainable, train
from rag.finetune.stage_key import drop_checkpoints, stage_key
from rag.params import Params
from rag.reading.abstention import AnswerScore, choose_threshold
from rag.reading.prompts import PROMPT_VERSION
from rag.reading.reader import write_manifest
from rag.records import (
    Answer,
    Passage,
    Question,
    read_chunks,
    read_questions,
    read_table,
)
from rag.weights import weights_digest


class ReaderTraining(Trainable, Protocol):
    """What both readers' trainings add to a `Trainable`."""

    def answer(self, examples: Sequence[ReadingExample]) -> list[Answer]:
        """Answers as the reader stands now."""

    def save(self, folder: Path) -> None:
        """Writes the tuned weights, as safetensors, below `folder`."""


def tune_reader(params: Params, artifacts: Artifacts, *, scores: Mapping[str, AnswerScore]) -> None:
    """Trains on the train split, keeps the state that is best on dev, chooses the threshold there.

    `scores` are the dev metrics (0 to 1 for one answer); the first one decides.
    """
    training, dev = _training(params, artifacts, scores)
    key = _stage_key(params, artifacts)
    checkpoint = artifacts.checkpoints / key
    drop_checkpoints(artifacts.checkpoints, kept=checkpoint)
    artifacts.reader.mkdir(parents=True, exist_ok=True)
    with training_log(artifacts.history, "train_reader") as (log, tick):
        summary = train(
            training,
            params.reader.training,
            seed=params.seed,
            log=log,
            checkpoint=checkpoint,
            tick=tick,
        )
    training.save(artifacts.reader)
    write_manifest(
        artifacts.reader,
        kind=params.reader.kind,
        model=params.reader.model,
        revision=params.reader.revision,
        sha256=weights_digest(params.reader.model, params.reader.revision),
        prompt_version=PROMPT_VERSION,
        best_step=summary.best_step,
        steps=summary.steps,
        dev={name: round(value, 4) for name, value in summary.best_metrics.items()},
        abstain_below=_threshold(params, training, dev, next(iter(scores.values()))),
    )
    drop_checkpoints(artifacts.checkpoints, kept=None)


def _training(
    params: Params, artifacts: Artifacts, scores: Mapping[str, AnswerScore]
) -> tuple[ReaderTraining, list[ReadingExample]]:
    questions = read_questions(artifacts.questions, "train")
    dev_questions = read_questions(artifacts.questions, "dev")
    chunks = read_chunks(artifacts.chunks)
    passages = _contexts(artifacts)
    count = params.reader.passages
    examples = reading_examples(questions, passages, gold_passages(questions, chunks), count)
    dev = evenly(
        [_dev_example(question, passages, count) for question in dev_questions],
        params.reader.training.dev_questions,
    )
    if params.reader.kind == "causal":
        from rag.finetune.causal import CausalReaderTraining
        from rag.reading.causal import CausalReader

        causal = CausalReader(params.reader, artifacts.weights_cache, None)
        return CausalReaderTraining(causal, params, examples, dev, scores), dev
    from rag.finetune.extractive import ExtractiveReaderTraining
    from rag.reading.extractive import ExtractiveReader

    extractive = ExtractiveReader(params.reader, artifacts.weights_cache, None)
    return ExtractiveReaderTraining(extractive, params, examples, dev, scores), dev


def _contexts(artifacts: Artifacts) -> dict[str, list[Passage]]:
    chunks = {chunk.chunk_id: chunk for chunk in read_chunks(artifacts.chunks)}
    passages: dict[str, list[Passage]] = {}
    for row in read_table(artifacts.contexts).to_pylist():
        passage = as_passage(chunks[row["chunk_id"]], rank=row["rank"], score=row["score"])
        passages.setdefault(row["question_id"], []).append(passage)
    return passages


def _dev_example(
    question: Question, passages: Mapping[str, Sequence[Passage]], count: int
) -> ReadingExample:
    shown = passages[question.question_id][:count]
    return ReadingExample(question, tuple(shown), question.answers[0] if question.answers else "")


def _threshold(
    params: Params,
    training: ReaderTraining,
    dev: Sequence[ReadingExample],
    score: AnswerScore,
) -> float | None:
    if params.reader.abstain != "auto":
        return params.reader.abstain
    if not dev:
        return None
    gold = [example.question.answers for example in dev]
    return choose_threshold(training.answer(dev), gold, score)


def _stage_key(params: Params, artifacts: Artifacts) -> str:
    """What a checkpoint belongs to: parameters, code, base weights and the stage's inputs."""
    settings = {
        "reader": params.reader.model_dump(mode="json"),
        "seed": params.seed,
        "weights": weights_digest(params.reader.model, params.reader.revision),
    }
    return stage_key(settings, [artifacts.questions, artifacts.chunks, artifacts.contexts])
