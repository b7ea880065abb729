"""Answering only when confident: the risk that is left at each share of questions answered.

A system that may decline answers the questions whose confidence reaches a threshold. Coverage is
the share it answers, risk the mean loss of those answers; the risk-coverage curve has one point for
each distinct confidence (El-Yaniv and Wiener, On the Foundations of Noise-free Selective
Classification, 2010). AURC, the area under it, is the risk that a question meets on average when
the threshold is its own confidence (Geifman, Uziel and El-Yaniv, 2019).

Ties: no threshold tells questions of one confidence apart, so they are answered together or not at
all, and each counts the risk when all of them are answered. No number depends on the order of rows.

    >>> curve = risk_coverage([0.9, 0.8, 0.8, 0.1], [0.0, 1.0, 0.0, 1.0])
    >>> [[float(value) for value in point] for point in zip(curve.coverage, curve.risk)]
    [[0.25, 0.0], [0.75, 0.3333333333333333], [1.0, 0.5]]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError

FloatVector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
#: By how much a threshold must be better to be preferred: less is the rounding of sums.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RiskCoverage:
    """The curve, from the most confident question to all: `coverage` and `risk` (P,), 0 to 1.

    Point p answers every question whose confidence is at least `threshold[p]`. `per_example` (N,),
    in the order of the rows given, is the risk at each question's own confidence.
    """

    coverage: FloatVector
    risk: FloatVector
    threshold: FloatVector
    per_example: FloatVector


@dataclass(frozen=True)
class BestThreshold:
    """The mean score, 0 to 1, of answering where confidence >= `threshold` and declining below.

    `threshold` is infinite where it is best to decline every question.
    """

    score: float
    threshold: float


def risk_coverage(confidence: npt.ArrayLike, losses: npt.ArrayLike) -> RiskCoverage:
    """The risk-coverage curve of N answers; row i of both is the same question.

    `losses` are 0 (right) to 1 (wrong), for example 1 - F1; higher `confidence` is more sure, on
    any scale. Raises MetricError naming the rows that are not finite or out of range.
    """
    sure = _checked("confidence", confidence)
    lost = _checked("loss", losses, within=(0.0, 1.0))
    _same_length("confidences", sure, "losses", lost)
    order, ends, owner = _tied_groups(sure)
    risk = np.cumsum(lost[order])[ends] / (ends + 1.0)  # (P,)
    # A running sum may round to just above the greatest loss, or below the least.
    risk = np.clip(risk, lost.min(), lost.max())
    return RiskCoverage((ends + 1.0) / len(sure), risk, sure[order][ends], risk[owner])


def aurc(confidence: npt.ArrayLike, losses: npt.ArrayLike) -> float:
    """Area under the risk-coverage curve, 0 to 1, lower is better: the mean of `per_example`."""
    return float(risk_coverage(confidence, losses).per_example.mean())


def best_aurc(losses: npt.ArrayLike) -> float:
    """The least AURC that any confidence can have on answers with these losses.

    The confidence that ranks answers from the smallest loss to the greatest, without ties.
    """
    lost = np.sort(_checked("loss", losses, within=(0.0, 1.0)))
    return float((np.cumsum(lost) / np.arange(1, len(lost) + 1)).mean())


def excess_aurc(confidence: npt.ArrayLike, losses: npt.ArrayLike) -> float:
    """AURC less `best_aurc`: what the confidence costs, 0 for one that ranks every answer right.

    Geifman et al. (2019) approximate the least AURC for large N; here it is exact for any N.
    """
    # Nothing is below the least but the rounding of two sums.
    return max(0.0, aurc(confidence, losses) - best_aurc(losses))


def coverage_at_risk(confidence: npt.ArrayLike, losses: npt.ArrayLike, risk: float) -> float:
    """The greatest share of questions that can be answered at a risk of at most `risk`.

    0.0 where even the most confident answers exceed it.
    """
    if not 0.0 <= risk <= 1.0:
        raise MetricError(f"coverage at risk: the risk must be between 0 and 1, got {risk}")
    curve = risk_coverage(confidence, losses)
    within = curve.coverage[curve.risk <= risk + _ROUNDING]
    return float(within.max(initial=0.0))


def best_threshold(
    confidence: npt.ArrayLike, scores: npt.ArrayLike, declined: npt.ArrayLike
) -> BestThreshold:
    """The threshold that gives the best mean score, as SQuAD 2.0's script finds `best_f1_thresh`.

    `scores` (N,) are those of the answers as given, `declined` (N,) those of saying nothing: 1 for
    a question without an answer, else 0; both are 0 to 1. The script takes the probability of "no
    answer" and answers up to a threshold; that is `confidence` = its negative. Of equally good
    thresholds the highest is taken: the one that answers least. The script goes through tied rows
    one by one and can so report a score that no threshold reaches; here they are one step.
    """
    sure = _checked("confidence", confidence)
    kept = _checked("score", scores, within=(0.0, 1.0))
    silent = _checked("score of declining", declined, within=(0.0, 1.0))
    _same_length("confidences", sure, "scores", kept)
    _same_length("confidences", sure, "scores of declining", silent)
    order, ends, _ = _tied_groups(sure)
    gains = np.cumsum((kept - silent)[order])[ends]  # (P,)
    best = int(np.flatnonzero(gains >= gains.max() - _ROUNDING)[0])
    if gains[best] <= _ROUNDING:
        return BestThreshold(float(silent.mean()), math.inf)
    return BestThreshold(
        float(silent.mean() + gains[best] / len(sure)), float(sure[order][ends][best])
    )


def _tied_groups(sure: FloatVector) -> tuple[IntVector, IntVector, IntVector]:
    """Rows from most to least confident (N,), the last place of each group of equals (P,), and the
    group of each row as it was given (N,)."""
    order = np.argsort(-sure, kind="stable")
    descending = sure[order]
    ends = np.append(np.flatnonzero(descending[:-1] != descending[1:]), len(sure) - 1)
    owner = np.empty(len(sure), dtype=np.int64)
    owner[order] = np.searchsorted(ends, np.arange(len(sure)))
    return order, ends, owner


def _checked(
    what: str, values: npt.ArrayLike, within: tuple[float, float] | None = None
) -> FloatVector:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector):
        raise MetricError(f"{what}: expected one value a question, got shape {vector.shape}")
    low, high = within or (-math.inf, math.inf)
    bad = np.flatnonzero(~(np.isfinite(vector) & (vector >= low) & (vector <= high)))
    if len(bad):
        expected = "finite" if within is None else f"between {low:g} and {high:g}"
        found = ", ".join(f"{vector[row]} in row {row}" for row in bad[:5])
        raise MetricError(f"{what}: expected values {expected}, found {found}")
    return vector


def _same_length(first: str, left: FloatVector, second: str, right: FloatVector) -> None:
    if len(left) != len(right):
        raise MetricError(f"selective answering: {len(left)} {first} but {len(right)} {second}")
