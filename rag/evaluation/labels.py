"""Accuracy, precision, recall and F1 of answers that are labels, such as yes, no and maybe.

Labels are compared in the canonical spelling of `normalize_answer`, so "Yes." is "yes". A
prediction is one of the known labels as a whole or it is none of them: "yesterday" is not "yes",
nor is "unknown" "no". One that is none of them is wrong: it misses its own label and is a false
positive of no other. Such predictions are reported, for precision does not see them.

The averages are those of scikit-learn over the known labels: macro is the mean over labels,
weighted the mean by support (how often each label is right), micro pools the counts. A ratio of
nothing to nothing (a label never predicted has no precision) is `zero_division`, 0 unless stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.normalize import normalize_answer

FloatVector = npt.NDArray[np.float64]
IntMatrix = npt.NDArray[np.int64]
#: One count for each label, (L,), or one for all of them.
Counts = npt.NDArray[np.int64] | np.int64


@dataclass(frozen=True)
class Average:
    """Precision, recall and F1 under one way of averaging, 0 to 1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class LabelScores:
    """The scores of N predictions over L known labels.

    `labels` are in canonical spelling and sorted unless they were given. `confusion` is (L, L + 1):
    how often a prediction was each label, or in the last column none, where a row's label was
    right. `correct` is (N,), 0.0 or 1.0; `outside` holds (row, prediction as it was given) of every
    prediction that is no known label.
    """

    labels: tuple[str, ...]
    confusion: IntMatrix
    correct: FloatVector
    outside: tuple[tuple[int, str], ...]
    precision: FloatVector
    recall: FloatVector
    f1: FloatVector
    support: npt.NDArray[np.int64]
    macro: Average
    micro: Average
    weighted: Average

    @property
    def accuracy(self) -> float:
        """Share of predictions that are right, 0 to 1; one outside the labels is wrong."""
        return float(self.correct.mean())

    @property
    def outside_rate(self) -> float:
        """Share of predictions that are no known label, 0 to 1."""
        return len(self.outside) / len(self.correct)


def label_scores(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    zero_division: float = 0.0,
) -> LabelScores:
    """Scores of predicted labels; row i of both is the same example.

    Known are `labels`, or when None those that occur among the references. Raises MetricError when
    there is nothing to score, the lengths differ, a reference is no known label, or two of `labels`
    are one and the same in canonical spelling.
    """
    if len(predictions) != len(references):
        raise MetricError(f"labels: {len(predictions)} predictions but {len(references)} labels")
    if not references:
        raise MetricError("labels: there is no example to score")
    if zero_division not in (0.0, 1.0):
        raise MetricError(f"labels: zero_division must be 0 or 1, got {zero_division}")
    place = _known(references, labels)
    size = len(place)
    right = np.array([_gold(row, text, place) for row, text in enumerate(references)])  # (N,)
    given = np.array([place.get(normalize_answer(text), size) for text in predictions])  # (N,)
    confusion = np.zeros((size, size + 1), dtype=np.int64)
    np.add.at(confusion, (right, given), 1)

    hits = np.diagonal(confusion).copy()  # (L,)
    claimed = confusion[:, :size].sum(axis=0)
    support = confusion.sum(axis=1)
    each = _precision_recall_f1(hits, claimed, support, zero_division)  # three of (L,)
    pooled = _precision_recall_f1(hits.sum(), claimed.sum(), support.sum(), zero_division)
    return LabelScores(
        labels=tuple(place),
        confusion=confusion,
        correct=(right == given).astype(np.float64),
        outside=tuple((row, text) for row, text in enumerate(predictions) if given[row] == size),
        precision=each[0],
        recall=each[1],
        f1=each[2],
        support=support,
        macro=Average(*(float(values.mean()) for values in each)),
        micro=Average(*map(float, pooled)),
        weighted=Average(*(float(np.average(values, weights=support)) for values in each)),
    )


def accuracy(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Share of predictions that are the right label, 0 to 1."""
    return label_scores(predictions, references).accuracy


def _known(references: Sequence[str], labels: Sequence[str] | None) -> Mapping[str, int]:
    """Each known label in canonical spelling, with its row in the confusion counts."""
    if labels is None:
        return {
            name: row for row, name in enumerate(sorted(set(map(normalize_answer, references))))
        }
    spelled: dict[str, str] = {}
    for label in labels:
        name = normalize_answer(label)
        if name in spelled:
            raise MetricError(f"labels: {spelled[name]!r} and {label!r} are the same label")
        spelled[name] = label
    return {name: row for row, name in enumerate(spelled)}


def _gold(row: int, text: str, place: Mapping[str, int]) -> int:
    name = normalize_answer(text)
    if name not in place:
        raise MetricError(
            f"labels: the right label of example {row}, {text!r}, is not among the known labels: "
            + ", ".join(map(repr, place))
        )
    return place[name]


def _precision_recall_f1(
    hits: Counts,
    claimed: Counts,
    support: Counts,
    zero_division: float,
) -> tuple[FloatVector, FloatVector, FloatVector]:
    """Precision, recall and F1 from counts of true positives, predictions and right labels."""
    return (
        _ratio(hits, claimed, zero_division),
        _ratio(hits, support, zero_division),
        _ratio(2 * hits, claimed + support, zero_division),
    )


def _ratio(part: Counts, whole: Counts, of_nothing: float) -> FloatVector:
    return np.where(whole > 0, part / np.maximum(whole, 1), of_nothing)
