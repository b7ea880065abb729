"""Do the intervals keep their promise? Coverage, false alarms and power, by simulation.

    python benchmarks/statistics_honesty.py               # the tables of docs/statistics.md
    python benchmarks/statistics_honesty.py --trials 100  # quick, with wider errors

Two systems answer the same questions about documents. Whether an answer is right depends on the
document, the question and the system, so scores of one document are alike, and so are the systems'
scores of one question. Exact match is 0 or 1; F1 is 1 where that is 1, between 0 and 1 for a fifth
of the questions, else 0; BLEU is counted from answers of one to six tokens. What is true is known,
so each interval can be checked. Shares have their Monte Carlo error beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from rag.errors import MetricError
from rag.evaluation.bleu import MAX_ORDER, STATISTICS, bleu_of
from rag.evaluation.power import power_of
from rag.evaluation.significance import mcnemar, permutation_test
from rag.evaluation.statistics import (
    FloatMatrix,
    FloatVector,
    Method,
    Resampling,
    bootstrap_intervals,
    mean_of,
)

CONFIDENCE = 0.95
LEVEL = 60.0
"""Exact match of the champion, percent."""
PARTLY_RIGHT = 0.2
PARTIAL_SCORES = np.array([0.33, 0.4, 0.5, 0.67, 0.8])
GAIN = 3.0
"""What the better challenger gains, points."""
_COLUMNS = ("champion em", "champion f1", "challenger em", "challenger f1", "ones")


@dataclass(frozen=True)
class Setting:
    """A test set and a pair of systems.

    `unevenness` is the coefficient of variation of the documents' sizes, `icc` the correlation of
    exact match within a document, `agreement` the share of questions that both systems get right
    or both get wrong. A fifth of what the systems do not share they owe to the document.
    """

    questions: int
    documents: int
    unevenness: float = 0.7
    icc: float = 0.1
    agreement: float = 0.75

    def __str__(self) -> str:
        return (
            f"{self.questions:5} of {self.documents:4}, uneven {self.unevenness:.1f}, "
            f"icc {self.icc:.2f}, agree {100 * self.agreement:.1f}"
        )


SETTINGS = (
    Setting(200, 30, icc=0.05),
    Setting(302, 28, icc=0.2),
    Setting(500, 100, icc=0.2, agreement=0.6),
    Setting(1000, 30, icc=0.1),
    Setting(1000, 300, icc=0.05, agreement=0.8),
    Setting(1000, 300, icc=0.2, agreement=0.6),
)
#: Where honesty is hard: very few documents, one of which is often most of the test set.
CORNER = (
    Setting(200, 6),
    Setting(200, 6, unevenness=1.2),
    Setting(200, 10),
    Setting(200, 10, unevenness=1.2),
)
#: The pair that retraining makes of data that hardly changed.
NEARLY_EQUAL = (
    Setting(1000, 1000, 0.0, 0.0, agreement=0.995),
    Setting(1000, 300, agreement=0.99),
    Setting(302, 28, agreement=0.98),
)
POWERED = (
    Setting(1000, 300, agreement=0.75),
    Setting(1000, 300, agreement=0.9),
    Setting(1000, 100, icc=0.2, agreement=0.85),
    Setting(1000, 30, agreement=0.9),
)


def simulated(
    setting: Setting, generator: np.random.Generator, gain: float = 0.0
) -> tuple[FloatMatrix, list[str]]:
    """The documents, and (N, 15): percents of both systems, ones, the champion's BLEU counts."""
    weights = generator.lognormal(
        0, math.sqrt(math.log1p(setting.unevenness**2)), setting.documents
    )
    sizes = np.maximum(1, np.round(weights / weights.sum() * setting.questions)).astype(int)
    owner = np.repeat(np.arange(setting.documents), sizes)
    # From correlations of scores to those of what lies behind them (exact at a level of 50 %).
    shared = math.cos(math.pi * (1.0 - setting.agreement))
    of_document = min(math.sin(setting.icc * math.pi / 2), shared)
    own = 0.2 * (1.0 - shared) if setting.icc else 0.0

    def effects(variance: float, each: np.ndarray) -> FloatVector:
        return math.sqrt(variance) * generator.standard_normal(len(each))[each]

    every = np.arange(len(owner))
    by_document = np.arange(setting.documents)
    document = effects(of_document, by_document)[owner]
    question = effects(shared - of_document, every)
    columns = []
    for right in (LEVEL, LEVEL + gain):
        noise = effects(own, by_document)[owner] + effects(1.0 - shared - own, every)
        columns += scores_of(document + question + noise, right / 100.0)
    exact, partial = columns[0] / 100.0, columns[1] / 100.0
    bleu = bleu_counts(exact == 1.0, (partial > 0.0) & (exact == 0.0), generator)
    names = [f"d{document}" for document in owner]
    return np.column_stack([*columns, np.ones(len(owner)), bleu]), names


def scores_of(latent: FloatVector, right: float) -> list[FloatVector]:
    """Exact match and F1 in percent; `latent` is standard normal, a share `right` is right."""
    from scipy.special import ndtr

    rank = ndtr(latent)
    step = ((rank - right) / PARTLY_RIGHT * len(PARTIAL_SCORES)).astype(int)
    partial = PARTIAL_SCORES[np.clip(step, 0, len(PARTIAL_SCORES) - 1)]
    f1 = np.where(rank < right, 1.0, np.where(rank < right + PARTLY_RIGHT, partial, 0.0))
    return [100.0 * (rank < right), 100.0 * f1]


def bleu_counts(
    right: np.ndarray, partly: np.ndarray, generator: np.random.Generator
) -> FloatMatrix:
    """Columns of `rag.evaluation.bleu`: a partly right answer is right but for one token more."""
    length = generator.integers(1, 7, size=len(right))
    predicted = length + partly
    orders = np.arange(MAX_ORDER)
    matches = np.maximum(length[:, None] - orders, 0) * (right | partly)[:, None]
    totals = np.maximum(predicted[:, None] - orders, 0)
    return np.column_stack([predicted, length, matches, totals]).astype(np.float64)


@functools.cache
def truths() -> dict[str, float]:
    """What intervals of the champion, and of two equal systems, should cover."""
    many = Setting(400_000, 400_000, 0.0, 0.0)
    columns, _ = simulated(many, np.random.default_rng(0))
    partial = 100.0 * PARTLY_RIGHT * PARTIAL_SCORES.mean()
    bleu = float(bleu_of(columns[:, len(_COLUMNS) :].sum(axis=0, keepdims=True))[0])
    return {"em": LEVEL, "f1": LEVEL + partial, "bleu": bleu, "em gain": 0.0, "f1 gain": 0.0}


STATISTICS_CHECKED = {
    "em": mean_of(0, 4),
    "f1": mean_of(1, 4),
    "bleu": lambda sums: bleu_of(sums[:, 5 : 5 + STATISTICS]),
    "em gain": lambda sums: (sums[:, 2] - sums[:, 0]) / sums[:, 4],
    "f1 gain": lambda sums: (sums[:, 3] - sums[:, 1]) / sums[:, 4],
}


@dataclass(frozen=True)
class Coverage:
    """Shares of the trials, and the median width of the intervals in points."""

    covered: float
    too_high: float
    too_low: float
    width: float


def coverage(
    setting: Setting, method: Method, *, trials: int, resamples: int, seed: int = 0
) -> dict[str, Coverage]:
    """How often intervals of equal systems hold the truth, by statistic."""
    true = truths()
    found: dict[str, list[tuple[bool, bool, float]]] = defaultdict(list)
    for trial in range(trials):
        columns, names = simulated(setting, np.random.default_rng([seed, trial]))
        drawn = Resampling(resamples, CONFIDENCE, trial, method)
        bounds = (-100.0, 100.0)
        intervals = bootstrap_intervals(columns, STATISTICS_CHECKED, names, drawn, bounds=bounds)
        for name, item in intervals.items():
            missed = (item.low > true[name] + 1e-9, item.high < true[name] - 1e-9)
            found[name].append((*missed, item.high - item.low))
    made = {}
    for name, rows in found.items():
        high, low, width = np.array(rows).T
        made[name] = Coverage(
            1 - high.mean() - low.mean(), high.mean(), low.mean(), np.median(width)
        )
    return made


def outcomes(
    setting: Setting, gain: float, *, trials: int, resamples: int, seed: int = 1
) -> dict[str, FloatVector]:
    """Each trial's verdict (0 or 1) by rule, and the power that its own differences predict."""
    found: dict[str, list[float]] = defaultdict(list)
    for trial in range(trials):
        columns, names = simulated(setting, np.random.default_rng([seed, trial]), gain)
        drawn = Resampling(resamples, CONFIDENCE, trial)
        intervals = bootstrap_intervals(
            columns, STATISTICS_CHECKED, names, drawn, bounds=(-100.0, 100.0)
        )
        for column, metric in enumerate(("em", "f1")):
            interval = intervals[f"{metric} gain"]
            differences = columns[:, 2 + column] - columns[:, column]
            found[f"{metric} shown"].append(interval.low > 0.0)
            found[f"{metric} different"].append(not interval.low <= 0.0 <= interval.high)
            chance = permutation_test(differences, names, resamples=resamples, seed=trial)
            found[f"{metric} permutation"].append(chance <= 1.0 - CONFIDENCE)
            with contextlib.suppress(MetricError):  # a pair that never differs predicts nothing
                found[f"{metric} predicted"].append(power_of(GAIN, differences, clusters=names))
            found[f"{metric} agree"].append((differences == 0.0).mean())
        chance = mcnemar(columns[:, 2] / 100.0, columns[:, 0] / 100.0)
        found["em mcnemar"].append(chance <= 1.0 - CONFIDENCE)
    return {name: np.array(values, dtype=np.float64) for name, values in found.items()}


def error_of(share: float, trials: int) -> float:
    """The Monte Carlo standard error of a share."""
    return math.sqrt(max(share * (1.0 - share), 1.0 / trials) / trials)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage, false alarms and power, simulated.")
    parser.add_argument("--trials", type=int, default=1000, help="test sets simulated a row")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples of each")
    options = parser.parse_args()
    for row in honesty_rows(options.trials, options.resamples):
        print(row, flush=True)


def honesty_rows(trials: int, resamples: int) -> Iterator[str]:
    """The tables, line by line."""
    drawn = {"trials": trials, "resamples": resamples}
    yield f"{trials} test sets a row, {resamples} resamples of each; percent +- Monte Carlo error"
    for title, settings in (("COVERAGE", SETTINGS), ("COVERAGE, few documents", CORNER)):
        yield f"\n{title} of 95 % intervals (and their median width in points)"
        names = "".join(f"{name:>15}" for name in STATISTICS_CHECKED)
        yield f"{'questions of documents':53}{'method':11}{names}"
        for setting in settings:
            for method in get_args(Method):
                yield _coverage_row(setting, method, coverage(setting, method, **drawn), trials)
    yield "\nFALSE ALARMS: equal systems called different, by interval, permutation test, McNemar"
    for setting in (*SETTINGS, *CORNER, *NEARLY_EQUAL):
        yield _alarm_row(setting, outcomes(setting, 0.0, **drawn), trials)
    yield f"\nPOWER for a gain of {GAIN:g} points: predicted from pairs of equal systems, observed"
    for setting in POWERED:
        pilot = outcomes(setting, 0.0, **drawn, seed=2)
        yield _power_row(setting, pilot, outcomes(setting, GAIN, **drawn), trials)


def _share(share: float, trials: int) -> str:
    return f"{100 * share:5.1f} +-{100 * error_of(share, trials):.1f}"


def _coverage_row(setting: Setting, method: str, found: Mapping[str, Coverage], trials: int) -> str:
    cells = [f"{100 * item.covered:8.1f} ({item.width:4.1f})" for item in found.values()]
    return f"{setting!s:53}{method:11}" + "".join(cells) + f"  +-{100 * error_of(0.95, trials):.1f}"


def _alarm_row(setting: Setting, found: Mapping[str, FloatVector], trials: int) -> str:
    names = ("em different", "em permutation", "em mcnemar", "f1 different", "f1 permutation")
    cells = [f"{name} {_share(found[name].mean(), trials)}" for name in names]
    return f"{setting!s:53}{'  '.join(cells)}  (em alike {found['em agree'].mean():.1%})"


def _power_row(
    setting: Setting,
    pilot: Mapping[str, FloatVector],
    better: Mapping[str, FloatVector],
    trials: int,
) -> str:
    cells = []
    for metric in ("em", "f1"):
        predicted = 100 * pilot[f"{metric} predicted"]
        low, high = np.quantile(predicted, [0.05, 0.95])
        observed = _share(better[f"{metric} shown"].mean(), trials)
        cells.append(
            f"{metric} predicted {predicted.mean():.1f} (one pilot: {low:.0f} to {high:.0f})"
            f" observed {observed}"
        )
    return f"{setting!s:53}{'; '.join(cells)}"


if __name__ == "__main__":
    main()
