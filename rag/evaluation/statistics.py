"""Bootstrap intervals: whole documents resampled, seeded and vectorised.

Questions about one document share their fate, so documents are drawn and not questions (the cluster
bootstrap; Davison and Hinkley 1997, section 3.8). A statistic is a function of column sums, for
example the sum of scores and the number of questions, or the n-gram counts of BLEU: corpus metrics
are recomputed for each resample instead of averaged. `resampling` draws, `tails` says which
quantiles become the ends of an interval, docs/statistics.md how well these hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.resampling import (
    Clusters,
    FloatMatrix,
    FloatVector,
    Statistic,
    clusters_of,
    leave_one_out,
    resampled_sums,
)
from rag.evaluation.tails import (
    Method,
    bca_tails,
    degrees_of_freedom,
    expanded_tails,
    percentile_tails,
)

__all__ = [
    "FloatMatrix",
    "FloatVector",
    "Interval",
    "Method",
    "Resampling",
    "Statistic",
    "bootstrap_interval",
    "bootstrap_intervals",
    "mean_of",
    "paired_bootstrap",
]


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampling:
    """How often documents are drawn, how wide the interval is, and where randomness starts.

    The default `method` covers what it promises from six documents on; see `tails`.
    """

    resamples: int
    confidence: float
    seed: int
    method: Method = "expanded"


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
    _check(resampling)
    drawn = clusters_of(matrix, clusters)
    values = {name: _finite(name, made(drawn.total)) for name, made in statistics.items()}
    if drawn.count == 1:
        return {name: Interval(float(value[0]), *bounds) for name, value in values.items()}
    sums = resampled_sums(drawn, resampling.resamples, resampling.seed)  # (R, M)
    intervals = {}
    for name, statistic in statistics.items():
        resampled = _finite(name, statistic(sums))
        tails = percentile_tails(resampling.confidence)
        if resampling.method != "percentile":
            without = _finite(name, leave_one_out(drawn, statistic))  # (D,)
            tails = _corrected_tails(float(values[name][0]), resampled, without, drawn, resampling)
        low, high = np.quantile(resampled, tails)
        intervals[name] = Interval(float(values[name][0]), float(low), float(high))
    return intervals


def bootstrap_interval(
    scores: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    method: Method = "expanded",
) -> Interval:
    """The mean of per-question scores (N,) with its interval."""
    vector = np.asarray(scores, dtype=np.float64)
    return bootstrap_intervals(
        np.column_stack([vector, np.ones_like(vector)]),
        {"mean": mean_of(0, 1)},
        clusters,
        Resampling(resamples, confidence, seed, method),
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
    method: Method = "expanded",
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
        method=method,
    )


def _check(resampling: Resampling) -> None:
    if resampling.resamples < 1 or not 0.0 < resampling.confidence < 1.0:
        raise MetricError(
            f"bootstrap: needs resamples >= 1 and confidence between 0 and 1, got {resampling}"
        )
    if resampling.method not in get_args(Method):
        raise MetricError(
            f"bootstrap: the method must be one of {', '.join(get_args(Method))}, "
            f"got {resampling.method!r}"
        )


def _corrected_tails(
    value: float,
    resampled: FloatVector,
    without: FloatVector,
    clusters: Clusters,
    resampling: Resampling,
) -> tuple[float, float]:
    """The levels of the ends, from the statistic without one cluster of each kind, (D,)."""
    times = clusters.times
    influence = np.average(without, weights=times) - without
    if resampling.method == "bca":
        return bca_tails(resampling.confidence, value, resampled, influence, times)
    freedom = degrees_of_freedom(influence, times, clusters.sizes)
    return expanded_tails(resampling.confidence, clusters.count, freedom)


def _finite(name: str, values: FloatVector) -> FloatVector:
    if not np.isfinite(values).all():
        raise MetricError(f"{name}: not finite in {(~np.isfinite(values)).sum()} of {len(values)}")
    return values
