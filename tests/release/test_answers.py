"""The reviewer's table: worst answers first, every system's answer, and where answers came from."""

from __future__ import annotations

from typing import Any

import pytest

from rag.evaluation.scoring import prediction_rows
from rag.records import PREDICTIONS, Answer, Evidence, Passage, Question, to_table
from rag.release.answers import answers_table, share_of_answer

QUESTIONS = [
    Question(f"q{i}", f"What sails {i}?", ("petrel",), f"d{i}", True, "test", "en")
    for i in range(3)
]
PASSAGES = [
    Passage("c1", "d0", "The petrel sails.", 1.0, 1),
    Passage("c2", "d1", "The fulmar sails.", 0.5, 2),
    Passage("c3", "d2", "Nothing sails.", 0.1, 3),
]


def answer(text: str, *shares: float | None) -> Answer:
    evidence = tuple(
        Evidence(item.chunk_id, item.document_id, item.text, item.score, item.rank, share)
        for item, share in zip(PASSAGES, shares, strict=False)
    )
    return Answer(text, -0.5, abstained=not text, evidence=evidence)


def shown(*given: Answer) -> list[dict[str, Any]]:
    """The table's rows as mappings, in the order of the questions."""
    rows = prediction_rows("tuned", QUESTIONS, given, retrieved=[PASSAGES] * 3)
    rows += prediction_rows("oracle", QUESTIONS, given[::-1], retrieved=[PASSAGES] * 3)
    table = answers_table(to_table(rows, PREDICTIONS))
    found = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    return sorted(found, key=lambda row: row["question_id"])


def test_the_share_of_each_passage_stands_beside_it() -> None:
    first, second, third = shown(answer("petrel", 0.18, 0.82), answer("fulmar"), answer("", 1.0))
    assert first["evidence"] == (
        "[d0, 18 % of the answer] The petrel sails.\n\n"
        "[d1, 82 % of the answer] The fulmar sails.\n\n"
        "[d2] Nothing sails."
    )
    assert first["source_share"] == 0.82
    assert second["evidence"].startswith("[d0] The petrel sails.")
    assert second["source_share"] is None
    assert third["evidence"].startswith("[d0] "), "abstained: nothing to have a share of"
    assert third["source_share"] is None
    assert (first["oracle"], second["oracle"], third["oracle"]) == (
        "(abstained)",
        "fulmar",
        "petrel",
    )


@pytest.mark.parametrize(
    ("posterior", "words"),
    [
        (1.0, "100 % of the answer"),
        (0.824, "82 % of the answer"),
        (0.01, "1 % of the answer"),
        (0.0099, "under 1 % of the answer"),
        (0.0, "under 1 % of the answer"),
    ],
)
def test_a_share_in_words(posterior: float, words: str) -> None:
    assert share_of_answer(posterior) == words
