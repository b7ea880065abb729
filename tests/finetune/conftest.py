"""Questions with the passages that a reader is trained on, and a corpus for the retriever."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.evaluation.answer_scores import exact_match
from rag.finetune.examples import ReadingExample
from rag.finetune.extractive import ExtractiveReaderTraining
from rag.finetune.generative import GenerativeReaderTraining
from rag.params import Params
from rag.reading.causal import CausalReader
from rag.reading.extractive import ExtractiveReader
from rag.records import Passage, Question
from tests.end_to_end_project import end_to_end_params, write_copying_model, write_project
from tests.finetune.generative_toy import ASKED, PASSAGES, scored
from tests.retrieval_toy import retrieval_params, write_retrieval_project
from tests.tiny_bert import save_tiny_sentence_transformer
from tests.toy import toy_params


@pytest.fixture
def example() -> Callable[..., ReadingExample]:
    """An example from its question, its passages' texts and its answers."""

    def make(text: str, passages: Sequence[str], *answers: str) -> ReadingExample:
        question = Question(f"id of {text}", text, answers, None, bool(answers), "train", "en")
        shown = tuple(Passage(f"c{i}", "d", part, 1.0, i) for i, part in enumerate(passages, 1))
        return ReadingExample(question, shown, answers[0] if answers else "")

    return make


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random sentence-transformers model; not to be changed."""
    return save_tiny_sentence_transformer(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture
def tuning(tiny_encoder: Path) -> Callable[..., Params]:
    """Params from the mode and overrides."""

    def make(mode: str, *overrides: str) -> Params:
        return retrieval_params(tiny_encoder, mode, *overrides)

    return make


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Artifacts]:
    """A project in which the retriever has yet to be tuned."""

    def make(name: str = "project", changed: Mapping[str, Any] | None = None) -> Artifacts:
        return write_retrieval_project(tmp_path / name, changed)

    return make


@pytest.fixture(scope="session")
def retrieved(
    toy_model: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Artifacts, Params]]:
    """A project before train_reader, with its params, by the weight of dense search; not to be
    changed."""
    reader = write_copying_model(toy_model, tmp_path_factory.mktemp("copying") / "model")
    made: dict[float, Artifacts] = {}

    def make(*overrides: str, dense_weight: float = 0.9) -> tuple[Artifacts, Params]:
        params = end_to_end_params(reader, tiny_encoder, dense_weight, *overrides)
        if dense_weight not in made:
            artifacts = Artifacts(tmp_path_factory.mktemp("retrieved"))
            write_project(artifacts, params)
            made[dense_weight] = artifacts
        return made[dense_weight], params

    return make


BOATS = "the red boat sails. the blue boat rests"
CAPTAIN = "captain marlow sails south"
MakeTraining = Callable[..., ExtractiveReaderTraining]


@pytest.fixture
def extractive_params(tiny_bert: Path) -> Callable[..., Params]:
    """Params of an extractive reader from overrides."""

    def make(*overrides: str) -> Params:
        return toy_params(
            f"reader.model={tiny_bert}",
            "reader.kind=extractive",
            "reader.fusion=joint",
            "reader.passages=2",
            "reader.stride_tokens=9",
            "reader.training.epochs=30",
            "reader.training.learning_rate=0.003",
            *overrides,
        )

    return make


@pytest.fixture
def boats(example: Callable[..., ReadingExample]) -> list[ReadingExample]:
    """Four examples, the second of which does not show its answer.

    The second passage of a question is found with a lower score than the first.
    """
    made = [
        example("what sails?", [BOATS, "the boat"], "boat"),
        example("lost answer", [BOATS], "harbour"),
        example("who sails?", [BOATS, CAPTAIN], "captain marlow", "captain"),
        example("who rests?", [CAPTAIN]),
    ]
    return [
        replace(one, passages=tuple(replace(p, score=1.0 / p.rank) for p in one.passages))
        for one in made
    ]


@pytest.fixture
def extractive_training(
    extractive_params: Callable[..., Params], tmp_path: Path, boats: list[ReadingExample]
) -> MakeTraining:
    """Training on `boats`, or on what is `shown`; the prior's temperature is 1/2."""

    def make(*overrides: str, shown: Sequence[ReadingExample] = ()) -> ExtractiveReaderTraining:
        params = extractive_params(*overrides)
        reader = ExtractiveReader(params.reader, tmp_path, None, prior_temperature=0.5)
        dev = [*boats[:1], *boats[2:]]
        return ExtractiveReaderTraining(
            reader, params, shown or boats, dev, {"exact_match": exact_match}
        )

    return make


@pytest.fixture
def make(
    toy_model: Path, tmp_path: Path, example: Callable[..., ReadingExample]
) -> Callable[..., GenerativeReaderTraining]:
    """A training of the three questions; of marginal fusions every question has both passages."""

    def training(*overrides: str) -> GenerativeReaderTraining:
        params = toy_params(f"reader.model={toy_model}", "reader.lora.frozen_layers=1", *overrides)
        reader = CausalReader(params.reader, tmp_path, None, prior_temperature=0.5)
        if params.reader.is_marginal:
            shown = [[PASSAGES[0], PASSAGES[1]]] * 2 + [[PASSAGES[1], PASSAGES[0]]]
        else:
            shown = [[PASSAGES[0]], [PASSAGES[0]], [PASSAGES[1]]]
        examples = [
            scored(example(question, passages, *([answer] if answer else [])))
            for (question, answer), passages in zip(ASKED, shown, strict=True)
        ]
        scores = {"exact_match": exact_match}
        return GenerativeReaderTraining(reader, params, examples, examples, scores)

    return training
