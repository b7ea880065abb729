"""Which quantiles of the resamples are the ends of an interval: percentile, expanded, BCa.

The percentile interval is too short with few clusters: it lacks the factor G / (G - 1) of an
unbiased variance and the longer tails of Student's t. The *expanded* interval takes quantiles
further out, by as much as a t interval is longer than a normal one (Hesterberg 2015, "What Teachers
Should Know about the Bootstrap", doi:10.1080/00031305.2015.1089789). Its degrees of freedom are
G - 1 only if all clusters weigh the same, so here they are estimated from the clusters. *BCa*
corrects bias and skewness instead (Efron 1987, doi:10.1080/01621459.1987.10478410).
docs/statistics.md shows what each of them covers.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from rag.errors import MetricError
from rag.evaluation.resampling import FloatVector, IntVector

#: `expanded` holds its confidence from six clusters on; the others are there to compare with.
Method = Literal["expanded", "percentile", "bca"]


def percentile_tails(confidence: float) -> tuple[float, float]:
    """The levels that leave out equal shares on both sides."""
    return (1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0


def expanded_tails(confidence: float, clusters: int, freedom: float) -> tuple[float, float]:
    """The levels that are as far out as Student's t with `freedom` degrees of freedom."""
    from scipy.special import ndtr  # type: ignore[import-untyped]

    longer = math.sqrt(clusters / (clusters - 1.0)) * t_quantile((1.0 + confidence) / 2.0, freedom)
    tail = float(ndtr(-longer))
    return tail, 1.0 - tail


def bca_tails(
    confidence: float,
    value: float,
    resampled: FloatVector,
    influence: FloatVector,
    times: IntVector,
) -> tuple[float, float]:
    """The levels corrected for bias and skewness.

    `influence` is how far each kind of cluster pulls the statistic, (D,): the jackknife's mean
    minus its values. `times` is how many clusters are of that kind. Raises MetricError when the
    value lies outside its resamples, where the correction is undefined.
    """
    from scipy.special import ndtr, ndtri

    below = ((resampled < value).mean() + (resampled <= value).mean()) / 2.0
    if not 0.0 < below < 1.0:
        raise MetricError(
            f"bca: the value {value:g} is outside all {len(resampled)} resamples, so its bias "
            "cannot be corrected; use the method expanded"
        )
    bias = ndtri(below)
    square = float((times * influence**2).sum())
    skewness = float((times * influence**3).sum()) / (6.0 * square**1.5) if square else 0.0
    moved = bias + ndtri(np.array(percentile_tails(confidence)))
    low, high = ndtr(bias + moved / (1.0 - skewness * moved))
    return float(low), float(high)


def degrees_of_freedom(influence: FloatVector, times: IntVector, sizes: IntVector) -> float:
    """How well the clusters tell the variance of a statistic, as degrees of freedom of t; >= 1.

    The smaller of two numbers. By size: (sum of n_g)^2 / (sum of n_g^2) - 1, as large documents
    outvote small ones (Kish's effective number). By influence: Satterthwaite's number, at which a
    chi-square varies as much as the kurtosis of the influence makes the estimated variance vary; it
    is small where two systems differ in a handful of clusters. Both are G - 1 for clusters that are
    alike and normal.
    `influence` and `times` are those of `bca_tails`; `sizes` are the rows of each cluster, (G,).
    """
    clusters = len(sizes)
    by_size = effective_number(sizes) - 1.0
    square = float((times * influence**2).sum())
    fourth = float((times * influence**4).sum())
    if not fourth:  # nothing varies
        return max(1.0, by_size)
    spread = clusters * fourth / square**2 - 1.0 + 2.0 / (clusters - 1.0)
    return max(1.0, min(by_size, 2.0 * clusters / spread))


def effective_number(sizes: IntVector) -> float:
    """(sum of n_g)^2 / (sum of n_g^2): how many clusters of one size would say as much."""
    weights = np.asarray(sizes, dtype=np.float64)
    return float(weights.sum() ** 2 / (weights**2).sum())


def t_quantile(level: float, freedom: float) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))
