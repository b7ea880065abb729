"""Six questions of three documents, answered by two systems: four answers differ."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from rag.evaluation.review_sample import answer_pairs, answers_digest
from rag.evaluation.review_sheet import ReviewKey, Sheet, System, draw_sheet
from rag.evaluation.scoring import prediction_rows
from tests.evaluation.conftest import as_table, make_answer, make_passage, make_question

#: Question id, document, the challenger's answer, the opponent's, the accepted one.
ANSWERS = (
    ("q1", "fleet", "The Sea Eagle", "Eagle", "Sea Eagle"),
    ("q2", "fleet", "2019", " 2019\n", "2019"),
    ("q3", "ports", "上海", "", "北京"),
    ("q4", "ports", "", "", "Nobody"),
    ("q5", "rules", "=SUM(A1)", "dogs travel free", "free"),
    ("q6", "rules", "noon", "dawn", "noon"),
)


def review_tables(answers: Sequence[tuple[str, ...]] = ANSWERS) -> tuple[pa.Table, pa.Table]:
    """Predictions of `tuned` and of `champion`, with two passages each, one in common."""
    questions = [
        make_question(row[0], row[4], document=row[1], text=f"{row[0]}?") for row in answers
    ]
    tables = []
    for system, column, own in (("tuned", 2, "ports"), ("champion", 3, "rules")):
        found = [
            [make_passage(1, f"Shared of {row[0]}."), make_passage(2, f"Of the {own}.", own)]
            for row in answers
        ]
        given = [make_answer(row[column]) for row in answers]
        tables.append(as_table(prediction_rows(system, questions, given, retrieved=found)))
    return tables[0], tables[1]


def make_review(
    seed: int = 7, n: int | None = None, *, show_accepted: bool = False
) -> tuple[Sheet, ReviewKey]:
    """The sheet of these answers and its key."""
    challenger, opponent = review_tables()
    return draw_sheet(
        answer_pairs(challenger, opponent),
        System("tuned", "4", answers_digest(challenger)),
        System("champion", "3", answers_digest(opponent)),
        n=n,
        seed=seed,
        created="2026-01-02T03:04:05+00:00",
        show_accepted=show_accepted,
    )
