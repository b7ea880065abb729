"""What is said of a check: its result, and on which side of its bound it must be."""

from __future__ import annotations

import pytest

from rag.evaluation.gate_words import bound, is_change, result


@pytest.mark.parametrize(
    ("passed", "conclusive", "decides", "said"),
    [
        (True, True, True, "passed"),
        (False, True, True, "failed"),
        (False, False, True, "cannot tell"),
        (False, False, False, "cannot tell (decides nothing)"),
    ],
)
def test_a_check_that_cannot_tell_has_not_failed(
    passed: bool, conclusive: bool, decides: bool, said: str
) -> None:
    assert result({"passed": passed, "conclusive": conclusive, "decides": decides}) == said


@pytest.mark.parametrize(
    ("name", "metric", "threshold", "words", "change"),
    [
        ("primary against champion", "f1", 0.0, "above 0.0", True),
        ("slice language=en against champion", "f1", -10.0, "above -10.0", True),
        ("floor", "f1", 30.0, "at least 30.0", False),
        ("collapse", "distinct_top1", 5.0, "at least 5.0", False),
        ("behaviour against champion", "abstention_rate", 20.0, "at most 20.0", True),
        ("behaviour against champion", "answer_length", 4.0, "0.25 to 4.00 times", False),
        ("cost against champion", "latency_p50", 1.5, "at most 1.5 times", False),
        ("budget", "decisions", 100.0, "at most 100", False),
    ],
)
def test_a_bound_is_a_ceiling_a_floor_or_to_be_exceeded(
    name: str, metric: str, threshold: float, words: str, change: bool
) -> None:
    check = {"name": name, "metric": metric, "threshold": threshold}
    assert bound(check) == words
    assert is_change(check) is change
