"""Recall and reciprocal rank by hand."""

from __future__ import annotations

import pytest

from rag.evaluation.ranking import recall_at, reciprocal_rank


@pytest.mark.parametrize(
    ("relevant", "first", "fifth", "reciprocal"),
    [
        ([], 0.0, 0.0, 0.0),
        ([True, True], 1.0, 1.0, 1.0),
        ([False, False, True], 0.0, 1.0, 1 / 3),
        ([False] * 5 + [True], 0.0, 0.0, 1 / 6),
        ([False] * 8, 0.0, 0.0, 0.0),
    ],
)
def test_ranking_by_hand(
    relevant: list[bool], first: float, fifth: float, reciprocal: float
) -> None:
    assert recall_at(relevant, 1) == first
    assert recall_at(relevant, 5) == fifth
    assert reciprocal_rank(relevant) == pytest.approx(reciprocal)


def test_cutoff_must_be_positive() -> None:
    with pytest.raises(ValueError, match="cutoff must be >= 1, got 0"):
        recall_at([True], 0)
