"""How well the passages of one question are ranked: each function 0 to 1, higher is better.

`relevant` and `gains` are best rank first, one entry for each passage retrieved; `total` is how
many relevant passages there are in all, retrieved or not. The definitions are those of trec_eval
(Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, chapter 8):
`retrieval_scores` applies them to a whole run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError

#: Cut-offs of recall that are kept for each question.
CUTOFFS = (1, 5)


def recall_at(relevant: Sequence[bool], cutoff: int, total: int | None = None) -> float:
    """Share of the `total` relevant passages that are among the first `cutoff`.

    Where `total` is None one passage is asked for and any will do, as for a question whose answer
    stands in several: then 1.0 when one is found (the top-k accuracy of DPR), as `hit_at`.
    """
    if total is None:
        return hit_at(relevant, cutoff)
    _check_total(relevant, total)
    return sum(map(bool, relevant[: _checked(cutoff)])) / total


def hit_at(relevant: Sequence[bool], cutoff: int) -> float:
    """1.0 when a relevant passage is among the first `cutoff`, else 0.0; trec_eval's `success`."""
    return float(any(relevant[: _checked(cutoff)]))


def precision_at(relevant: Sequence[bool], cutoff: int) -> float:
    """Share of the first `cutoff` places with a relevant passage; a place left empty has none."""
    return sum(map(bool, relevant[: _checked(cutoff)])) / cutoff


def reciprocal_rank(relevant: Sequence[bool]) -> float:
    """1 / rank of the first relevant passage; 0.0 when none is relevant."""
    return next((1.0 / rank for rank, good in enumerate(relevant, start=1) if good), 0.0)


def average_precision(relevant: Sequence[bool], total: int) -> float:
    """Mean of the precision at each relevant passage; those not retrieved count 0."""
    _check_total(relevant, total)
    ranks = np.flatnonzero(np.asarray(relevant, dtype=bool)) + 1.0  # (found,)
    return float((np.arange(1, len(ranks) + 1) / ranks).sum() / total)


def r_precision(relevant: Sequence[bool], total: int) -> float:
    """Precision at rank `total`, where precision equals recall."""
    _check_total(relevant, total)
    return precision_at(relevant, total)


def ndcg_at(
    gains: Sequence[float],
    cutoff: int | None,
    judged: Sequence[float],
    *,
    exponential: bool = False,
) -> float:
    """Discounted cumulative gain of the first `cutoff`, over that of the best ranking possible.

    `judged` holds the gains of all passages that were judged, in any order; a gain g at rank r
    counts g / log2(r + 1) (Järvelin and Kekäläinen, 2002, as trec_eval has it), or where
    `exponential` (2^g - 1) / log2(r + 1) (Burges et al., 2005). No cut-off when it is None. Raises
    MetricError for gains that are negative or not finite, or when no judged passage has any.
    """
    length = None if cutoff is None else _checked(cutoff)
    ours, best = _gains("retrieved", gains), _gains("judged", judged)
    if not (best > 0).any():
        raise MetricError("nDCG: no judged passage has a gain: the best ranking has none either")
    if exponential:
        ours, best = _exponential(ours), _exponential(best)
    ideal = _discounted(np.sort(best)[::-1][:length])
    return _discounted(ours[:length]) / ideal


def _discounted(gains: npt.NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _gains(which: str, gains: Sequence[float]) -> npt.NDArray[np.float64]:
    vector = np.asarray(gains, dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(vector) & (vector >= 0.0)))
    if len(bad):
        raise MetricError(
            f"nDCG: gains must be finite and >= 0, got {vector[bad[0]]} "
            f"for {which} passage {bad[0] + 1}"
        )
    return vector


def _exponential(gains: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if (gains > 64).any():
        raise MetricError(
            f"nDCG: the exponential gain of {gains.max():g} is out of range (0 to 64)"
        )
    gained: npt.NDArray[np.float64] = np.expm1(gains * np.log(2.0))
    return gained


def _checked(cutoff: int) -> int:
    if cutoff < 1:
        raise ValueError(f"cutoff must be >= 1, got {cutoff}")
    return cutoff


def _check_total(relevant: Sequence[bool], total: int) -> None:
    if total < 1:
        raise MetricError(f"ranking: undefined without a relevant passage, got a total of {total}")
    found = sum(map(bool, relevant))
    if found > total:
        raise MetricError(f"ranking: {found} relevant passages retrieved, but only {total} in all")
