"""The train_reader stage's work: examples, the loop, the threshold for abstaining, the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from rag.artifacts import Artifacts
from rag.errors import TrainingError
from rag.finetune.end_to_end import EndToEndTraining, end_to_end_training
from rag.finetune.examples import (
    ReadingExample,
    as_passage,
    choose_examples,
    dev_metrics,
    evenly,
    gold_passages,
    judged_passages,
    reading_examples,
)
from rag.finetune.generative import GenerativeReaderTraining
from rag.finetune.history import report_speed, training_log
from rag.finetune.loop import Trainable, train
from rag.finetune.passage_prior import weigh_questions
from rag.finetune.stage_key import drop_checkpoints, stage_key
from rag.finetune.workers import main_first, world
from rag.params import Params, ReaderParams
from rag.reading.abstention import AnswerScore, choose_threshold
from rag.reading.answerer import load_encoder
from rag.reading.marginal import calibrated_temperature
from rag.reading.prompts import PROMPT_VERSION, Example
from rag.reading.reader import load_reader, write_manifest
from rag.records import (
    Answer,
    Passage,
    Question,
    read_chunks,
    read_questions,
    read_table,
)
from rag.retrieval.embeddings import FACTS
from rag.weights import weights_digest


class ReaderTraining(Trainable, Protocol):
    """What both readers' trainings add to a `Trainable`."""

    def answer(self, examples: Sequence[ReadingExample]) -> list[Answer]:
        """Answers as the reader stands now."""

    def save(self, folder: Path) -> None:
        """Writes the tuned weights, as safetensors, below `folder`; no more training after it."""

    def serve(self, reader: Any) -> None:
        """Answers with `reader` from here on: what was saved, loaded as it is served."""


def tune_reader(params: Params, artifacts: Artifacts, *, scores: Mapping[str, AnswerScore]) -> None:
    """Trains on the train split, keeps the state that is best on dev, chooses the threshold there.

    `scores` are the dev metrics (0 to 1 for one answer); the first one decides.
    """
    checkpoint = artifacts.checkpoints / _stage_key(params, artifacts)
    with main_first():
        data = reading_data(params, artifacts)
        training = reader_training(params, artifacts, data, scores)
        drop_checkpoints(artifacts.checkpoints, kept=checkpoint)
        shutil.rmtree(artifacts.reader_query_encoder, ignore_errors=True)
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
    if not world().is_main:
        return  # the main worker writes what came of it
    report_speed("train_reader", summary.trained, summary.seconds, artifacts.speed)
    facts = {
        "kind": params.reader.kind,
        "model": params.reader.model,
        "revision": params.reader.revision,
        "sha256": weights_digest(params.reader.model, params.reader.revision),
        "export": "merged" if params.reader.lora is None else params.reader.export,
        "quantize": params.reader.quantize,
        "prompt_version": PROMPT_VERSION,
        "prior_temperature": data.prior_temperature,
        "examples": [asdict(example) for example in data.prompt_examples],
        "best_step": summary.best_step,
        "steps": summary.steps,
        **({"end_to_end": training.facts()} if isinstance(training, EndToEndTraining) else {}),
    }
    training.save(artifacts.reader)
    # Rounded on its way, or weighing passages in its own way, the reader that is served is not
    # quite the one that was watched while it trained.
    is_another = params.reader.export == "merged" or params.reader.quantize != "none"
    if is_another:
        write_manifest(artifacts.reader, **facts)
        training.serve(_load(params, artifacts, data, artifacts.reader))
    if params.reader.knows_query_likelihood:
        tuned = cast(GenerativeReaderTraining, training).reader
        facts |= weigh_questions(tuned, params.reader, data.dev)
        is_another = True
    dev = summary.best_metrics
    answers = training.answer(data.dev) if is_another or params.reader.abstain == "auto" else []
    if is_another:
        dev = {**dev, **dev_metrics(answers, data.dev, scores)}
    threshold = _threshold(params, answers, data.dev, next(iter(scores.values())))
    write_manifest(
        artifacts.reader,
        **facts,
        dev={name: round(value, 4) for name, value in dev.items()},
        abstain_below=threshold,
    )
    drop_checkpoints(artifacts.checkpoints, kept=None)


@dataclass(frozen=True)
class ReadingData:
    """What a reader is trained on, watched on, and shown in its prompts."""

    train: Sequence[ReadingExample]
    dev: Sequence[ReadingExample]
    prompt_examples: Sequence[Example]
    prior_temperature: float


def reading_data(params: Params, artifacts: Artifacts) -> ReadingData:
    """Train and dev questions with the passages that retrieval gave each.

    As many as the reader reads, fewer to train on where params say so; of end-to-end training all,
    for the encoder to choose among.
    """
    settings = params.reader
    count = settings.passages if settings.end_to_end is None else params.retrieve.top_k
    questions = read_questions(artifacts.questions, "train")
    dev_questions = read_questions(artifacts.questions, "dev")
    gold = gold_passages(questions, read_chunks(artifacts.chunks))
    passages = _contexts(artifacts)
    train_examples = reading_examples(
        questions,
        passages,
        gold,
        settings.training.passages or count,
        withheld_share=settings.training.withheld_share,
        seed=params.seed,
    )
    dev = [_dev_example(question, passages, count) for question in dev_questions]
    prompt_examples = choose_examples(questions, gold, max(1, settings.examples), params.seed)
    if len(prompt_examples) < settings.examples:
        raise TrainingError(
            f"reader.examples: {settings.examples} are asked for, and the train questions give "
            f"{len(prompt_examples)} whose document holds the answer; lower it or add questions"
        )
    # A question that stands in every prompt would be asked with its answer beside it.
    shown = {example.question for example in prompt_examples[: settings.examples]}
    return ReadingData(
        train=[item for item in train_examples if item.question.text not in shown],
        dev=evenly(dev, settings.training.dev_questions),
        prompt_examples=prompt_examples,
        prior_temperature=prior_temperature(settings, dev),
    )


def prior_temperature(settings: ReaderParams, dev: Sequence[ReadingExample]) -> float:
    """The temperature of p(z|x) that params give, or the one calibrated on the dev questions.

    Dev rather than train: a retriever tuned on the train questions is surer of them than it is
    right.
    """
    if settings.prior_temperature != "auto":
        return settings.prior_temperature
    judged = judged_passages(dev, settings.passages)
    return round(calibrated_temperature(judged.scores, judged.right), 6)


def reader_training(
    params: Params, artifacts: Artifacts, data: ReadingData, scores: Mapping[str, AnswerScore]
) -> ReaderTraining:
    """The untuned reader with everything it learns from, and the query encoder if it learns too."""
    training: Any = _reader_alone(params, artifacts, data, scores)
    if params.reader.end_to_end is None:
        return cast(ReaderTraining, training)
    return end_to_end_training(params, artifacts, training, data, scores)


def _reader_alone(
    params: Params, artifacts: Artifacts, data: ReadingData, scores: Mapping[str, AnswerScore]
) -> Any:
    reader = _load(params, artifacts, data, None)
    if params.reader.kind == "extractive":
        from rag.finetune.extractive import ExtractiveReaderTraining

        return ExtractiveReaderTraining(reader, params, data.train, data.dev, scores)
    return GenerativeReaderTraining(reader, params, data.train, data.dev, scores)


def _load(params: Params, artifacts: Artifacts, data: ReadingData, folder: Path | None) -> Any:
    return load_reader(
        params.reader,
        artifacts.weights_cache,
        folder,
        prior_temperature=data.prior_temperature,
        examples=data.prompt_examples[: params.reader.examples],
    )


def _contexts(artifacts: Artifacts) -> dict[str, list[Passage]]:
    chunks = {chunk.chunk_id: chunk for chunk in read_chunks(artifacts.chunks)}
    passages: dict[str, list[Passage]] = {}
    for row in read_table(artifacts.contexts).to_pylist():
        passage = as_passage(chunks[row["chunk_id"]], rank=row["rank"], score=row["score"])
        parts = {name: row[name] for name in ("dense_score", "bm25_score")}
        passages.setdefault(row["question_id"], []).append(replace(passage, **parts))
    return passages


def _dev_example(
    question: Question, passages: Mapping[str, Sequence[Passage]], count: int
) -> ReadingExample:
    shown = passages[question.question_id][:count]
    return ReadingExample(question, tuple(shown), question.answers[0] if question.answers else "")


def _threshold(
    params: Params,
    answers: Sequence[Answer],
    dev: Sequence[ReadingExample],
    score: AnswerScore,
) -> float | None:
    if params.reader.abstain != "auto":
        return params.reader.abstain
    if not dev:
        return None
    gold = [example.question.answers for example in dev]
    return choose_threshold(answers, gold, score)


def _stage_key(params: Params, artifacts: Artifacts) -> str:
    """What a checkpoint belongs to: parameters, code, base weights and the stage's inputs."""
    settings = {
        "reader": params.reader.model_dump(mode="json"),
        "seed": params.seed,
        "weights": weights_digest(params.reader.model, params.reader.revision),
    }
    inputs = [artifacts.questions, artifacts.chunks, artifacts.contexts]
    if params.reader.end_to_end is not None:
        settings["query_encoder"] = load_encoder(artifacts, params).query_fingerprint
        inputs += [artifacts.fusion, artifacts.embeddings / FACTS]
    return stage_key(settings, inputs)
