"""Evidence-gated exact match by hand."""

from __future__ import annotations

import math

import pytest

from rag.errors import MetricError
from rag.evaluation.evidence import evidence_exact_match, evidence_passages

RIGHT, WRONG = "The new ship is the “Sea Eagle”.", "Built in 2019."


@pytest.mark.parametrize(
    ("passages", "posteriors", "expected"),
    [
        ([WRONG, RIGHT], [0.3, 0.7], 1.0),
        ([WRONG, RIGHT], [0.7, 0.3], 0.0),
        ([WRONG, RIGHT], [None, 0.1], 1.0),  # a passage without a posterior was not weighed
        ([RIGHT, WRONG], [0.5, 0.5], 1.0),  # of equals the better ranked
        ([WRONG, RIGHT], [0.5, 0.5], 0.0),
        ([WRONG, RIGHT], [None, None], 1.0),  # all in one prompt: any of them
        ([WRONG, RIGHT], None, 1.0),
        ([WRONG], None, 0.0),
        ([], None, 0.0),  # known by heart
    ],
)
def test_the_passage_answered_from_must_hold_the_answer(
    passages: list[str], posteriors: list[float | None] | None, expected: float
) -> None:
    answers = ["the Eagle", "Sea Eagle"]
    assert evidence_exact_match("The Sea Eagle.", answers, passages, posteriors) == expected
    assert evidence_exact_match("the sea", answers, passages, posteriors) == 0.0


def test_any_accepted_answer_in_the_passage_will_do() -> None:
    assert evidence_exact_match("2019", ["2019", "Sea Eagle"], [RIGHT]) == 1.0
    assert evidence_exact_match("1", ["1"], [WRONG]) == 0.0  # "1" does not stand in "2019"
    assert evidence_exact_match("北京。", ["北京"], ["首都是北京市。"]) == 1.0


def test_declining_needs_no_evidence() -> None:
    assert evidence_exact_match("", [], [WRONG]) == 1.0
    assert evidence_exact_match(" ", [""], []) == 1.0
    assert evidence_exact_match("", ["2019"], [WRONG]) == 0.0
    assert evidence_exact_match("2019", [], [WRONG]) == 0.0


def test_evidence_is_the_passage_of_the_highest_posterior() -> None:
    assert evidence_passages(["a", "b", "c"], [0.2, 0.5, 0.3]) == ("b",)
    assert evidence_passages(["a", "b"]) == ("a", "b")


def test_evidence_that_cannot_be_judged_is_named() -> None:
    with pytest.raises(MetricError, match="the posterior of passage 2 is nan"):
        evidence_exact_match("a", ["a"], ["a", "b"], [0.5, math.nan])
    with pytest.raises(MetricError, match="2 passages but 1 posteriors"):
        evidence_exact_match("a", ["a"], ["a", "b"], [0.5])
