"""How well the passages of one question are ranked: recall@k and reciprocal rank, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

#: Cut-offs of recall that are kept for each question.
CUTOFFS = (1, 5)


def recall_at(relevant: Sequence[bool], cutoff: int) -> float:
    """1.0 when a relevant passage is among the first `cutoff`; `relevant` is best first."""
    if cutoff < 1:
        raise ValueError(f"cutoff must be >= 1, got {cutoff}")
    return float(any(relevant[:cutoff]))


def reciprocal_rank(relevant: Sequence[bool]) -> float:
    """1 / rank of the first relevant passage; 0.0 when none is relevant."""
    return next((1.0 / rank for rank, good in enumerate(relevant, start=1) if good), 0.0)
