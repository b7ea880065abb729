"""Could two systems of equal quality differ this much? Permutation test, McNemar's test, Holm.

Each is a p-value: how often chance alone would show a difference at least as large. Whole documents
are permuted, as they are resampled for the intervals. All are two-sided and pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.resampling import FloatVector, clusters_of

#: Up to this many clusters that differ, all 2^G sign patterns are counted (a million sums).
_EXACT_CLUSTERS = 20
_SIGNS_AT_ONCE = 2**18
#: Sums that differ by less than this share of the largest possible one are ties.
_TIE = 1e-12


def permutation_test(
    differences: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int,
    seed: int,
) -> float:
    """The p-value of the mean of paired differences (N,), if the systems were exchangeable.

    All differences of a cluster change sign together. With up to 20 clusters that differ, every
    pattern of signs is counted and the result is exact; beyond, `resamples` are drawn and the
    observed one counts among them, (1 + extreme) / (1 + R), so the error rate holds (Phipson and
    Smyth 2010, doi:10.2202/1544-6115.1585). Raises MetricError on no rows, values that are not
    finite, lengths that differ, or no resample.
    """
    vector = _vector("permutation test: differences", differences)
    if resamples < 1:
        raise MetricError(f"permutation test: needs resamples >= 1, got {resamples}")
    drawn = clusters_of(vector[:, None], clusters)
    sums = np.abs(np.repeat(drawn.sums[:, 0], drawn.times))
    largest = sums.sum()
    sums = sums[sums > _TIE * largest]  # a sum of zero has no sign to change
    observed = abs(float(drawn.total[0, 0])) - _TIE * largest
    if len(sums) <= _EXACT_CLUSTERS:
        return float((np.abs(_every_total(sums)) >= observed).mean())
    totals = _drawn_totals(sums, resamples, np.random.default_rng(seed))
    return float((1 + (np.abs(totals) >= observed).sum()) / (1 + resamples))


def mcnemar(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """The exact p-value that two systems are right equally often; row i is one question of both.

    Scores are 0 or 1, as exact match is. Of the questions that only one system got right, each is
    a fair coin (McNemar 1947). The coins are taken as independent: where a document has several
    questions, `permutation_test` with its clusters is the one to trust. Raises MetricError on no
    rows, lengths that differ, or other scores than 0 and 1.
    """
    from scipy.special import bdtr  # type: ignore[import-untyped]

    ours, theirs = _vector("mcnemar: first", first), _vector("mcnemar: second", second)
    if ours.shape != theirs.shape:
        raise MetricError(f"mcnemar: {len(ours)} scores of the first but {len(theirs)} of second")
    for name, scores in (("first", ours), ("second", theirs)):
        bad = np.flatnonzero((scores != 0.0) & (scores != 1.0))[:5]
        if len(bad):
            raise MetricError(
                f"mcnemar: scores must be 0 or 1; of {name}, rows {bad.tolist()} are "
                f"{scores[bad].tolist()}"
            )
    won, lost = int((ours > theirs).sum()), int((ours < theirs).sum())
    return min(1.0, 2.0 * float(bdtr(min(won, lost), won + lost, 0.5)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for being several, by Holm's step-down; in the order given.

    Rejecting where the adjusted value is at most 0.05 makes a false claim among all of them at most
    5 % of the time, however they depend on each other (Holm 1979). Raises MetricError when there is
    none, or one is not between 0 and 1.
    """
    bad = {name: value for name, value in p_values.items() if not 0.0 <= value <= 1.0}
    if bad or not p_values:
        raise MetricError(f"holm: expected p-values between 0 and 1, got {bad or 'none'}")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _vector(what: str, values: npt.ArrayLike) -> FloatVector:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector):
        raise MetricError(f"{what}: expected at least one score in one row each, {vector.shape}")
    bad = np.flatnonzero(~np.isfinite(vector))[:5].tolist()
    if bad:
        raise MetricError(f"{what}: not finite in rows {bad}")
    return vector


def _every_total(sums: FloatVector) -> FloatVector:
    """Totals under all patterns of signs but for their own mirror images: (2^(G-1),)."""
    totals = sums[:1] if len(sums) else np.zeros(1)
    for item in sums[1:]:
        totals = np.concatenate([totals + item, totals - item])
    return totals


def _drawn_totals(sums: FloatVector, resamples: int, generator: np.random.Generator) -> FloatVector:
    """Totals under random signs, (R,); equal sums share one draw of how many are positive."""
    kinds, times = np.unique(sums, return_counts=True)
    at_once = max(1, _SIGNS_AT_ONCE // len(kinds))
    totals = []
    for start in range(0, resamples, at_once):
        size = (min(at_once, resamples - start), len(kinds))
        if len(kinds) < len(sums):
            positive: npt.NDArray[np.integer] = generator.binomial(times, 0.5, size=size)
        else:
            bits = np.frombuffer(generator.bytes(math.ceil(size[0] * size[1] / 8)), dtype=np.uint8)
            positive = np.unpackbits(bits, count=size[0] * size[1]).reshape(size)
        totals.append(positive.astype(np.float64) @ kinds)
    signed: FloatVector = 2.0 * np.concatenate(totals) - sums.sum()
    return signed
