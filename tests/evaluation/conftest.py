"""Small, hand-made questions and answers for the evaluation room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from rag.evaluation.scoring import prediction_rows
from rag.records import PREDICTIONS, Answer, Passage, Question

Table = Callable[..., pa.Table]


def make_question(
    question_id: str, *answers: str, document: str | None = "d", text: str = "What?"
) -> Question:
    return Question(question_id, text, answers, document, bool(answers), "test", "en", {"kind": 1})


def make_passage(rank: int, text: str, document: str = "d") -> Passage:
    return Passage(f"{document}-{rank}", document, text, 1.0 / rank, rank)


def make_answer(text: str) -> Answer:
    return Answer(text, -0.5, abstained=not text)


def as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = {name: [row[name] for row in rows] for name in PREDICTIONS.names}
    return pa.Table.from_pydict(columns, schema=PREDICTIONS)


@pytest.fixture
def questions() -> list[Question]:
    """Four questions of three documents; the last has no answer."""
    return [
        make_question("q1", "Sea Eagle", "the Eagle", document="fleet", text="Which ship is new?"),
        make_question("q2", "2019", document="fleet", text="When was it built?"),
        make_question("q3", "北京", document="ports", text="首都在哪里?"),
        make_question("q4", document="rules", text="Who forbade it?"),
    ]


@pytest.fixture
def retrieved() -> list[list[Passage]]:
    """The gold passage at rank 1, at rank 2, nowhere; the fourth question has none."""
    ship = make_passage(1, "The new ship is the “Sea Eagle”.", "fleet")
    return [
        [ship, make_passage(2, "Other text.", "ports")],
        [make_passage(1, "Built in 2019.", "ports"), make_passage(2, "Built in 2019.", "fleet")],
        [make_passage(1, "上海是城市。", "ports")],
        [make_passage(1, "Nobody.", "rules")],
    ]


@pytest.fixture
def table(questions: list[Question], retrieved: list[list[Passage]]) -> pa.Table:
    """Tuned answers three of four rightly, zero-shot one, closed book none."""
    texts = {
        "tuned": ["The Sea Eagle", "2019", "上海", ""],
        "zero_shot": ["Eagle of the Sea", "2019", "上海", "the master"],
        "closed_book": ["a boat", "1", "广州", "the master"],
    }
    rows = []
    for system, given in texts.items():
        found = None if system == "closed_book" else retrieved
        answers = [make_answer(text) for text in given]
        rows += prediction_rows(system, questions, answers, retrieved=found)
    return as_table(rows)
