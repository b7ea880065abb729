"""What a test set can show: the smallest gain it finds, the power for a gain, the questions needed.

The gate promotes when the lower end of the paired interval is above zero (or `min_effect`). That
interval is about as long as Student's t interval over documents, so the power for a true gain is
that of a t test: noncentral t, with the standard error and the degrees of freedom of the
differences. Everything follows from the spread of the differences between two systems that were
scored on the same questions; a pilot pair (the champion and its predecessor) is enough. Effects
have the unit of the differences. docs/statistics.md holds the predictions against simulations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.resampling import clusters_of
from rag.evaluation.tails import degrees_of_freedom, t_quantile

_MOST_QUESTIONS = 10**9
#: Sums that are smaller than this, against the largest difference, are rounding.
_NOTHING = 1e-12


@dataclass(frozen=True)
class Spread:
    """How much the differences of a pair of systems scatter, and how documents add to it.

    `deviation` is the standard deviation of one question's difference. `design_effect` is how many
    times larger the variance of the mean is than if questions were independent; below 1 documents
    average out. `freedom` is how many degrees of freedom the variance rests on, with `questions`
    questions of `documents` documents.
    """

    deviation: float
    design_effect: float
    questions: int
    documents: int
    freedom: float

    def standard_error(self, questions: float) -> float:
        """Of the mean difference over so many questions, with as many to a document as here."""
        return self.deviation * math.sqrt(self.design_effect / questions)

    def freedom_at(self, questions: float) -> float:
        """The degrees of freedom with so many questions: documents grow along with them."""
        return max(1.0, (self.freedom + 1.0) * questions / self.questions - 1.0)


def spread_of(differences: npt.ArrayLike, clusters: Sequence[str] | None = None) -> Spread:
    """Measures the spread of paired differences (N,), with the cluster of each question.

    Raises MetricError when there are fewer than two clusters, a value is not finite, lengths
    differ, or all clusters differ alike, for then the spread is unknown.
    """
    vector = np.asarray(differences, dtype=np.float64)
    if vector.ndim != 1 or len(vector) < 2:
        raise MetricError(f"power: expected two differences or more, got shape {vector.shape}")
    bad = np.flatnonzero(~np.isfinite(vector))[:5].tolist()
    if bad:
        raise MetricError(f"power: differences that are not finite in rows {bad}")
    centred = vector - vector.mean()
    drawn = clusters_of(centred[:, None], clusters)
    if drawn.count < 2:
        raise MetricError("power: one cluster says nothing about others; give two or more")
    influence = drawn.sums[:, 0]
    if np.abs(influence).max() <= _NOTHING * np.abs(vector).max():
        raise MetricError(
            f"power: the {drawn.count} clusters all differ by {vector.mean():g}, so the spread is "
            "unknown; compare two systems that do not answer alike"
        )
    questions, deviation = len(vector), float(vector.std(ddof=1))
    squares = float((drawn.times * influence**2).sum()) * drawn.count / (drawn.count - 1.0)
    return Spread(
        deviation=deviation,
        design_effect=squares / questions / deviation**2,
        questions=questions,
        documents=drawn.count,
        freedom=degrees_of_freedom(influence, drawn.times, drawn.sizes),
    )


def deviation_at(agreement: float) -> float:
    """The deviation of exact-match differences (0 or 1 each) of equally good systems.

    For when there is no pilot pair: a share `1 - agreement` of the questions differs, by one.
    """
    if not 0.0 <= agreement < 1.0:
        raise MetricError(f"power: agreement must be at least 0 and below 1, got {agreement}")
    return math.sqrt(1.0 - agreement)


def minimum_detectable_effect(
    differences_or_sd: npt.ArrayLike | Spread,
    n: int | None = None,
    *,
    clusters: Sequence[str] | None = None,
    power: float = 0.8,
    confidence: float = 0.95,
) -> float:
    """The smallest true gain that n questions show with this power; n of the pilot by default.

    `differences_or_sd` are the differences of a pilot pair (with their `clusters`), the Spread of
    one, or the standard deviation of a difference when every question stands alone.
    """
    from scipy.special import nctdtrinc  # type: ignore[import-untyped]

    spread, questions = _spread(differences_or_sd, n, clusters)
    _between("power", power)
    freedom, bar = _bar(spread, questions, confidence)
    return float(nctdtrinc(freedom, 1.0 - power, bar)) * spread.standard_error(questions)


def power_of(
    effect: float,
    differences_or_sd: npt.ArrayLike | Spread,
    n: int | None = None,
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> float:
    """How probably n questions show a true gain of `effect`: the interval's lower end above zero.

    Arguments are those of `minimum_detectable_effect`. An effect of 0 is shown with half the error
    rate, (1 - confidence) / 2, as the other half calls it a loss.
    """
    from scipy.special import nctdtr

    spread, questions = _spread(differences_or_sd, n, clusters)
    if not (math.isfinite(effect) and effect >= 0.0):
        raise MetricError(f"power: the effect must be a gain of 0 or more, got {effect}")
    freedom, bar = _bar(spread, questions, confidence)
    shift = effect / spread.standard_error(questions)
    return 1.0 if shift > bar + 30.0 else 1.0 - float(nctdtr(freedom, shift, bar))


def questions_needed(
    effect: float,
    differences_or_sd: npt.ArrayLike | Spread,
    *,
    clusters: Sequence[str] | None = None,
    power: float = 0.8,
    confidence: float = 0.95,
) -> int:
    """The fewest questions that show a true gain of `effect` with this power.

    They come with as many documents in proportion as the pilot has. Arguments are those of
    `minimum_detectable_effect`. Raises MetricError when a billion would not do.
    """
    whole = isinstance(differences_or_sd, Spread) or np.ndim(differences_or_sd) > 0
    spread, _ = _spread(differences_or_sd, None if whole else 2, clusters)
    if not (math.isfinite(effect) and effect > 0.0):
        raise MetricError(f"power: the effect must be a gain above 0, got {effect}")

    def enough(questions: int) -> bool:
        found = minimum_detectable_effect(spread, questions, power=power, confidence=confidence)
        return found <= effect

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_QUESTIONS:
            raise MetricError(f"power: no test set of practical size shows a gain of {effect:g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class Plan:
    """What a test set can show of one metric. `sentence` says it to a reader.

    `rows` has for each gain asked about the power of this test set and the questions it takes.
    """

    metric: str
    spread: Spread
    power: float
    smallest_gain: float
    rows: tuple[tuple[float, float, int], ...]

    def sentence(self) -> str:
        """One line, for a terminal."""
        return (
            f"with {self.spread.questions} questions of {self.spread.documents} documents, the "
            f"smallest gain that can be shown with {100 * self.power:.0f} % power is "
            f"{self.smallest_gain:.1f} points of {self.metric}"
        )


def plan(
    differences: npt.ArrayLike,
    clusters: Sequence[str] | None = None,
    *,
    metric: str,
    gains: Sequence[float] = (1.0, 2.0, 3.0, 5.0),
    min_effect: float = 0.0,
    power: float = 0.8,
    confidence: float = 0.95,
) -> Plan:
    """What the test set of a pilot pair can show, from its differences in points, (N,).

    A gain counts as shown when the interval's lower end is above `min_effect`, as at the gate; the
    gains asked about must be above it too.
    """
    spread = spread_of(differences, clusters)
    low = [gain for gain in gains if not gain > min_effect]
    if low:
        raise MetricError(f"power: gains {low} are not above min_effect {min_effect:g}")
    return Plan(
        metric=metric,
        spread=spread,
        power=power,
        smallest_gain=min_effect
        + minimum_detectable_effect(spread, power=power, confidence=confidence),
        rows=tuple(
            (
                gain,
                power_of(gain - min_effect, spread, confidence=confidence),
                questions_needed(gain - min_effect, spread, power=power, confidence=confidence),
            )
            for gain in gains
        ),
    )


def _spread(
    given: npt.ArrayLike | Spread, n: int | None, clusters: Sequence[str] | None
) -> tuple[Spread, int]:
    """The spread, and the number of questions that is asked about."""
    if isinstance(given, Spread):
        spread = given
    elif np.ndim(given) > 0:
        spread = spread_of(given, clusters)
    else:
        deviation = float(np.asarray(given, dtype=np.float64))
        if n is None or clusters is not None:
            raise MetricError("power: with a standard deviation, give n, and no clusters")
        if not (math.isfinite(deviation) and deviation > 0.0):
            raise MetricError(f"power: the standard deviation must be above 0, got {deviation}")
        spread = Spread(deviation, 1.0, n, n, n - 1.0)
    questions = spread.questions if n is None else n
    if questions < 2:
        raise MetricError(f"power: needs two questions or more, got {questions}")
    return spread, questions


def _bar(spread: Spread, questions: int, confidence: float) -> tuple[float, float]:
    """Degrees of freedom, and how many standard errors a gain must be above zero."""
    _between("confidence", confidence)
    freedom = spread.freedom_at(questions)
    return freedom, t_quantile((1.0 + confidence) / 2.0, freedom)


def _between(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise MetricError(f"power: {name} must be between 0 and 1, got {value}")
