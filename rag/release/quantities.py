"""What the gate measures, as functions of column sums, so that one resampling serves them all.

A quantity is one system's level, a difference of two systems, a ratio, or an effect of the
attribution grid. Each is a statistic of sums over the questions that count for it; those over the
same questions share their resamples. Questions about one document are drawn together.

So few documents that chance alone puts all of them on one side in more than `1 - confidence` of
cases, 2 / 2^G, say nothing: the interval is then the whole range (fewer than 6 at 95 %).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rag.errors import ReleaseError
from rag.evaluation.bleu import bleu_of, bleu_statistics
from rag.evaluation.metric_groups import RETRIEVAL_METRICS
from rag.evaluation.scoring import DECIMALS
from rag.evaluation.statistics import (
    FloatMatrix,
    FloatVector,
    Interval,
    Resampling,
    Statistic,
    bootstrap_intervals,
    mean_of,
)

Mask = npt.NDArray[np.bool_]
Key = TypeVar("Key", bound=Hashable)

ABSTENTION = "abstention_rate"
LENGTH = "answer_length"
_ANSWERABLE = ("bleu", "rougeL")
_NAMED_IN_A_MESSAGE = 3
#: The end of an interval of a ratio of which nothing is known; a record can hold no infinity.
_ANY = 1e6


@dataclass(frozen=True)
class Quantity:
    """`statistic` of the sums of `columns` (N, M) over the rows where `counted` (N,) is true."""

    columns: FloatMatrix
    counted: Mask
    statistic: Statistic
    bounds: tuple[float, float]


@dataclass(frozen=True)
class Sampling:
    """How questions are drawn: the document of each (N,), and how often."""

    clusters: Sequence[str]
    resampling: Resampling


class Arm:
    """One system's predictions, sorted by question; metrics are made of them when asked for."""

    def __init__(self, label: str, table: pa.Table) -> None:
        self.label = label
        self.table = table
        self._levels: dict[str, Quantity] = {}

    def has(self, metric: str) -> bool:
        """Whether the metric can be computed: a system without retrieval has no recall."""
        return metric not in RETRIEVAL_METRICS or self.table[metric].null_count < len(self.table)

    def level(self, metric: str) -> Quantity:
        """A metric in percent; ReleaseError where it cannot be computed."""
        if metric not in self._levels:
            if not self.has(metric):
                raise ReleaseError(f"{self.label} has no {metric}: it does not retrieve")
            self._levels[metric] = self._made(metric)
        return self._levels[metric]

    def column(self, name: str) -> FloatVector:
        """A column of numbers, NaN where it is null."""
        values = self.table[name]
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.uint8())
        return np.asarray(values.to_numpy(), dtype=np.float64)

    def _made(self, metric: str) -> Quantity:
        everywhere = np.ones(len(self.table), dtype=bool)
        if metric == LENGTH:
            # An empty answer is one character long, so that a ratio is always defined.
            lengths = np.array([len(text) + 1 for text in self.table["prediction"].to_pylist()])
            return Quantity(_counted(lengths), everywhere, mean_of(0, 1), (1.0, _ANY))
        answerable = self.column("answerable") > 0.0
        if metric == "bleu":
            return self._bleu(answerable)
        scores = self.column("abstained" if metric == ABSTENTION else metric)
        counted = everywhere
        if metric in _ANSWERABLE:
            counted = answerable
        elif metric in RETRIEVAL_METRICS:
            counted = ~np.isnan(scores)
        if not counted.any():
            raise ReleaseError(f"{self.label}: no question counts for {metric}")
        bad = counted & ~((scores >= 0.0) & (scores <= 1.0))
        if bad.any():
            ids = self.table["question_id"].to_pylist()
            shown = ", ".join(str(ids[row]) for row in np.flatnonzero(bad)[:_NAMED_IN_A_MESSAGE])
            raise ReleaseError(
                f"{self.label}: {metric} must be between 0 and 1, and is not for {bad.sum()} "
                f"questions, for example {shown}"
            )
        return Quantity(
            _counted(100.0 * np.where(counted, scores, 0.0)), counted, mean_of(0, 1), (0.0, 100.0)
        )

    def _bleu(self, answerable: Mask) -> Quantity:
        rows = np.flatnonzero(answerable)
        if not len(rows):
            raise ReleaseError(f"{self.label}: no question counts for bleu")
        predictions = self.table["prediction"].to_pylist()
        answers = self.table["answers"].to_pylist()
        counts = bleu_statistics([predictions[row] for row in rows], [answers[row] for row in rows])
        columns = np.zeros((len(self.table), counts.shape[1]))
        columns[rows] = counts
        return Quantity(columns, answerable, bleu_of, (0.0, 100.0))


def contrast(weights: Sequence[tuple[float, Quantity]]) -> Quantity:
    """A weighted sum of levels over the same questions: a difference is `(1, a), (-1, b)`."""
    first = weights[0][1]
    for _, level in weights:
        if not np.array_equal(level.counted, first.counted):
            raise ReleaseError(
                "a metric that counts for other questions in one system than another"
            )
    ends = np.cumsum([level.columns.shape[1] for _, level in weights])

    def statistic(sums: FloatMatrix) -> FloatVector:
        parts = np.split(sums, ends[:-1], axis=1)
        found = [
            weight * level.statistic(part)
            for (weight, level), part in zip(weights, parts, strict=True)
        ]
        return np.asarray(sum(found), dtype=np.float64)

    columns = np.hstack([level.columns for _, level in weights])
    return Quantity(columns, first.counted, statistic, (-100.0, 100.0))


def difference(ours: Quantity, theirs: Quantity) -> Quantity:
    """Ours minus theirs, question by question."""
    return contrast([(1.0, ours), (-1.0, theirs)])


def ratio(ours: Quantity, theirs: Quantity) -> Quantity:
    """Ours divided by theirs."""
    width = ours.columns.shape[1]

    def statistic(sums: FloatMatrix) -> FloatVector:
        return ours.statistic(sums[:, :width]) / theirs.statistic(sums[:, width:])

    columns = np.hstack([ours.columns, theirs.columns])
    return Quantity(columns, ours.counted & theirs.counted, statistic, (0.0, _ANY))


def measure(
    quantities: Mapping[Key, Quantity],
    sampling: Sampling,
    subset: Mask | None = None,
) -> dict[Key, Interval]:
    """Each quantity with its interval, over the questions of `subset` (N,) alone if it is given."""
    together: dict[bytes, dict[Key, Quantity]] = {}
    for key, quantity in quantities.items():
        counted = quantity.counted if subset is None else quantity.counted & subset
        together.setdefault(counted.tobytes(), {})[key] = quantity
    owners = np.asarray(sampling.clusters)
    found: dict[Key, Interval] = {}
    for packed, group in together.items():
        rows = np.frombuffer(packed, dtype=bool)
        if not rows.any():
            raise ReleaseError(f"no question counts for {', '.join(map(str, group))}")
        found |= _measured(group, rows, owners[rows].tolist(), sampling.resampling)
    return {key: found[key] for key in quantities}


def say_nothing(confidence: float, clusters: int) -> bool:
    """Whether so few clusters are all on one side by chance more often than confidence allows."""
    return 2.0 ** (1 - clusters) > 1.0 - confidence


def _measured(
    group: Mapping[Key, Quantity], rows: Mask, clusters: Sequence[str], resampling: Resampling
) -> dict[Key, Interval]:
    names = {f"{place}": key for place, key in enumerate(group)}
    statistics, start = {}, 0
    for name, quantity in zip(names, group.values(), strict=True):
        end = start + quantity.columns.shape[1]
        statistics[name] = _of_columns(quantity.statistic, start, end)
        start = end
    unknown = say_nothing(resampling.confidence, len(set(clusters)))
    found = bootstrap_intervals(
        np.hstack([quantity.columns[rows] for quantity in group.values()]),
        statistics,
        clusters,
        resampling,
        bounds=(0.0, 0.0),
    )
    intervals = {}
    for name, key in names.items():
        interval = found[name]
        low, high = group[key].bounds if unknown else (interval.low, interval.high)
        # To the decimals of metrics.json: sums of equal scores may differ in their last bits.
        value, low, high = (round(end, DECIMALS) + 0.0 for end in (interval.value, low, high))
        intervals[key] = Interval(value, low, high)
    return intervals


def _of_columns(statistic: Statistic, start: int, end: int) -> Statistic:
    return lambda sums: statistic(sums[:, start:end])


def _counted(scores: npt.ArrayLike) -> FloatMatrix:
    values = np.asarray(scores, dtype=np.float64)
    return np.column_stack([values, np.ones_like(values)])
