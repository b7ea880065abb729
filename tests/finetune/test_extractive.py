"""Training of the extractive reader, against the formula of its loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rag.evaluation.answer_scores import exact_match
from rag.finetune.examples import ReadingExample
from rag.finetune.extractive import ExtractiveReaderTraining
from rag.finetune.loop import train
from rag.params import Params
from rag.reading.extractive import ExtractiveReader
from tests.toy import toy_params

MakeExample = Callable[..., ReadingExample]
BOATS = "the red boat sails. the blue boat rests"
CAPTAIN = "captain marlow sails south"


@pytest.fixture(scope="module")
def params(tiny_bert: Path) -> Params:
    return toy_params(
        f"reader.model={tiny_bert}",
        "reader.kind=extractive",
        "reader.passages=2",
        "reader.training.epochs=30",
        "reader.training.learning_rate=0.003",
    )


@pytest.fixture
def training(params: Params, tmp_path: Path, example: MakeExample) -> ExtractiveReaderTraining:
    examples = [
        example("what sails?", [BOATS, "the boat"], "boat"),
        example("lost answer", [BOATS], "harbour"),
        example("who sails?", [BOATS, CAPTAIN], "captain marlow", "captain"),
        example("who rests?", [CAPTAIN]),
    ]
    reader = ExtractiveReader(params.reader, tmp_path, None)
    dev = [*examples[:1], *examples[2:]]
    return ExtractiveReaderTraining(reader, params, examples, dev, {"exact_match": exact_match})


def test_an_example_whose_answer_is_not_shown_cannot_be_learnt_from(
    training: ExtractiveReaderTraining,
) -> None:
    assert training.names(range(len(training.lengths))) == [
        "id of what sails?",
        "id of who sails?",
        "id of who rests?",
    ]


def test_lengths_count_the_padded_tokens_of_all_passages(
    training: ExtractiveReaderTraining,
) -> None:
    # [CLS] what sails ? [SEP] + 9 + [SEP], twice because there are two passages.
    assert training.lengths == [30, 30, 10]


def test_the_loss_is_that_of_all_places_of_the_answer(training: ExtractiveReaderTraining) -> None:
    """-log of the sum over places of p(start) p(end), both over the question's passages."""
    reader = training._reader
    places = {
        # the passage's number, first and last token
        0: [(0, 7, 7), (0, 12, 12), (1, 6, 6)],
        1: [(1, 5, 6), (1, 5, 5)],
        2: [(0, 0, 0)],
    }
    shown = {0: ("what sails?", [BOATS, "the boat"]), 1: ("who sails?", [BOATS, CAPTAIN])}
    shown[2] = ("who rests?", [CAPTAIN])
    losses = []
    for i, (question, passages) in shown.items():
        readings = [reader.read(question, passage) for passage in passages]
        with torch.inference_mode():
            start, end = reader.logits(readings)
        all_starts = sum(math.exp(value) for value in start.flatten().tolist())
        all_ends = sum(math.exp(value) for value in end.flatten().tolist())
        chance = sum(math.exp(start[p, a] + end[p, b]) for p, a, b in places[i])
        losses.append(-math.log(chance / (all_starts * all_ends)))
    assert training.loss([0]).item() == pytest.approx(losses[0], abs=1e-4)
    assert training.loss([2, 1, 0]).item() == pytest.approx(sum(losses) / 3, abs=1e-4)


def test_a_few_steps_teach_the_answers_and_a_saved_reader_gives_them(
    training: ExtractiveReaderTraining, params: Params, tmp_path: Path
) -> None:
    losses = []
    summary = train(
        training,
        params.reader.training,
        seed=1,
        log=lambda row, _: losses.append(row.get("loss", -1.0)),
    )
    assert losses[-2] < 0.1 * losses[0]
    assert summary.best_metrics == {"dev_exact_match": 100.0}
    training.save(tmp_path / "reader")
    loaded = ExtractiveReader(params.reader, tmp_path, tmp_path / "reader")
    answers = loaded.answer(
        [example.question.text for example in training._dev],
        [example.passages for example in training._dev],
    )
    assert [answer.text for answer in answers][::2] == ["boat", ""]
    assert answers == training.answer(training._dev)


def test_a_saved_reader_tells_nothing_of_this_machine(
    training: ExtractiveReaderTraining, tmp_path: Path
) -> None:
    training.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["config.json", "model.safetensors"]
    home = str(Path.home()).encode()
    assert not any(home in path.read_bytes() for path in files)
