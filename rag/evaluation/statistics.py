"""Bootstrap intervals: percentile method, whole documents resampled, seeded and vectorised.

Questions about one document share their fate, so documents are drawn and not questions (the cluster
bootstrap; Davison and Hinkley 1997, section 3.8). A statistic is a function of column sums, for
example the sum of scores and the number of questions, or the n-gram counts of BLEU: a resample then
costs one row of a matrix product, and corpus metrics are recomputed instead of averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError

FloatVector = npt.NDArray[np.float64]
FloatMatrix = npt.NDArray[np.float64]
#: Sums of columns for R resamples, (R, M), to one value a resample, (R,).
Statistic = Callable[[FloatMatrix], FloatVector]

#: Random draws held in memory at once, about 32 MB.
_DRAWS_IN_MEMORY = 2**21


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampling:
    """How often documents are drawn, how wide the interval is, and where randomness starts."""

    resamples: int
    confidence: float
    seed: int


def mean_of(column: int, count: int) -> Statistic:
    """The statistic `sum of column / sum of count`, for columns of scores and of ones."""
    return lambda sums: sums[:, column] / sums[:, count]


def bootstrap_intervals(
    columns: npt.ArrayLike,
    statistics: Mapping[str, Statistic],
    clusters: Sequence[str] | None,
    resampling: Resampling,
    *,
    bounds: tuple[float, float],
) -> dict[str, Interval]:
    """Intervals of several statistics over the same resamples.

    `columns` is (N, M), one row a question; `clusters` names the document of each row (each row is
    its own when None). One cluster alone says nothing about others: its interval is `bounds`, the
    range that the statistics can take. Raises MetricError when there is nothing to resample, a
    value is not finite, or a statistic is undefined for some resample.
    """
    matrix = np.asarray(columns, dtype=np.float64)
    if matrix.ndim != 2 or not len(matrix):
        raise MetricError(f"bootstrap: expected at least one row of scores, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        rows = np.flatnonzero(~np.isfinite(matrix).all(axis=1))[:5].tolist()
        raise MetricError(f"bootstrap: scores that are not finite in rows {rows}")
    if resampling.resamples < 1 or not 0.0 < resampling.confidence < 1.0:
        raise MetricError(
            f"bootstrap: needs resamples >= 1 and confidence between 0 and 1, got {resampling}"
        )
    sums = _cluster_sums(matrix, clusters)  # (G, M)
    tails = [(1.0 - resampling.confidence) / 2.0, (1.0 + resampling.confidence) / 2.0]
    resampled = _resampled_sums(sums, resampling) if len(sums) > 1 else None  # (R, M)
    intervals = {}
    for name, statistic in statistics.items():
        value = _finite(name, statistic(sums.sum(axis=0, keepdims=True)))
        low, high = bounds
        if resampled is not None:
            low, high = np.quantile(_finite(name, statistic(resampled)), tails)
        intervals[name] = Interval(float(value[0]), float(low), float(high))
    return intervals


def bootstrap_interval(
    scores: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """The mean of per-question scores (N,) with its interval."""
    vector = np.asarray(scores, dtype=np.float64)
    return bootstrap_intervals(
        np.column_stack([vector, np.ones_like(vector)]),
        {"mean": mean_of(0, 1)},
        clusters,
        Resampling(resamples, confidence, seed),
        bounds=bounds,
    )["mean"]


def paired_bootstrap(
    challenger: npt.ArrayLike,
    champion: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> Interval:
    """The mean difference challenger - champion; row i of both is the same question."""
    first = np.asarray(challenger, dtype=np.float64)
    second = np.asarray(champion, dtype=np.float64)
    if first.shape != second.shape:
        raise MetricError(
            f"paired bootstrap: {first.shape} challenger scores but {second.shape} champion scores"
        )
    return bootstrap_interval(
        first - second,
        clusters,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        bounds=bounds,
    )


def _cluster_sums(matrix: FloatMatrix, clusters: Sequence[str] | None) -> FloatMatrix:
    """Rows added up by cluster, in the order of the clusters' names: (N, M) -> (G, M)."""
    if clusters is None:
        return matrix
    if len(clusters) != len(matrix):
        raise MetricError(f"bootstrap: {len(matrix)} rows of scores but {len(clusters)} clusters")
    names, owner = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), matrix.shape[1]))
    np.add.at(sums, owner, matrix)
    return sums


def _resampled_sums(sums: FloatMatrix, resampling: Resampling) -> FloatMatrix:
    """Column sums of R draws of G clusters out of G: (G, M) -> (R, M)."""
    generator = np.random.default_rng(resampling.seed)
    groups, resamples = len(sums), resampling.resamples
    at_once = max(1, min(resamples, _DRAWS_IN_MEMORY // groups))
    resampled = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = generator.integers(0, groups, size=(size, groups))  # (r, G)
        drawn += groups * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups)
        resampled[start : start + size] = times.astype(np.float64) @ sums
    return resampled


def _finite(name: str, values: FloatVector) -> FloatVector:
    if not np.isfinite(values).all():
        raise MetricError(f"{name}: not finite in {(~np.isfinite(values)).sum()} of {len(values)}")
    return values
