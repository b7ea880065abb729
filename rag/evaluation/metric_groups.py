"""The metrics of a predictions table as columns that can be resampled, alone or in pairs.

Metrics that count over the same questions form a group: all questions (exact match, F1,
abstention), the answerable ones (BLEU, ROUGE-L), those with retrieval scores (recall, MRR). A group
is a matrix with one row a question; each metric is a function of its column sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag.errors import MetricError
from rag.evaluation.bleu import STATISTICS, bleu_of, bleu_statistics
from rag.evaluation.statistics import (
    FloatMatrix,
    Interval,
    Resampling,
    Statistic,
    bootstrap_intervals,
    mean_of,
)

Row = Mapping[str, Any]

RETRIEVAL_METRICS = ("recall@1", "recall@5", "mrr")
#: Column of the predictions table -> name of its mean in metrics.json.
_OVER_ALL = {"exact_match": "exact_match", "f1": "f1", "abstained": "abstention_rate"}
_OVER_ANSWERABLE = {"rougeL": "rougeL"}
_OVER_RETRIEVED = {name: name for name in RETRIEVAL_METRICS}
_NAMED_IN_A_MESSAGE = 5


@dataclass(frozen=True)
class MetricGroup:
    """Some metrics of one system: `columns` is (N, M), scores in percent and then counts."""

    system: str
    question_ids: Sequence[str]
    answers: Sequence[Sequence[str]]
    clusters: Sequence[str]
    columns: FloatMatrix
    statistics: Mapping[str, Statistic]


def metric_groups(system: str, rows: Sequence[Row]) -> list[MetricGroup]:
    """The groups of one system; the last is absent when the system does not retrieve."""
    refuse(f"{system}: questions that occur twice", repeated(row["question_id"] for row in rows))
    retrieved, partial = [], []
    for row in rows:
        present = {row[name] is not None for name in RETRIEVAL_METRICS}
        retrieved += [row] if present == {True} else []
        partial += [row["question_id"]] if len(present) > 1 else []
    refuse(f"{system}: questions with only some of the retrieval scores", partial)
    answerable = [row for row in rows if row["answerable"]]
    if not answerable:
        raise MetricError(f"{system}: no question is answerable: BLEU and ROUGE are undefined")
    groups = [
        _group(system, rows, _OVER_ALL),
        _with_bleu(_group(system, answerable, _OVER_ANSWERABLE), answerable),
    ]
    return groups + ([_group(system, retrieved, _OVER_RETRIEVED)] if retrieved else [])


def group_intervals(
    group: MetricGroup, baseline: MetricGroup | None, resampling: Resampling
) -> dict[str, Interval]:
    """Intervals of a group's metrics, or of their paired differences group - baseline."""
    columns, statistics = group.columns, dict(group.statistics)
    if baseline is not None:
        width = columns.shape[1]
        columns = np.hstack([columns, _aligned(group, baseline)])
        statistics = {name: _difference(made, width) for name, made in statistics.items()}
    return bootstrap_intervals(
        columns,
        statistics,
        group.clusters,
        resampling,
        bounds=(0.0 if baseline is None else -100.0, 100.0),
    )


def repeated(items: Iterable[str]) -> list[str]:
    """Those that occur more than once, in order of first occurrence."""
    return [item for item, times in Counter(items).items() if times > 1]


def refuse(what: str, names: Sequence[str]) -> None:
    """Raises MetricError with the first few names, if there are any."""
    if names:
        shown = ", ".join(map(str, names[:_NAMED_IN_A_MESSAGE]))
        more = len(names) - _NAMED_IN_A_MESSAGE
        raise MetricError(f"{what}: {shown}" + (f" and {more} more" if more > 0 else ""))


def _group(system: str, rows: Sequence[Row], metrics: Mapping[str, str]) -> MetricGroup:
    ids = [row["question_id"] for row in rows]
    columns = [np.array([float(row[name]) for row in rows]) for name in metrics]
    for name, scores in zip(metrics, columns, strict=True):
        bad = [ids[row] for row in np.flatnonzero(~((scores >= 0.0) & (scores <= 1.0)))]
        refuse(f"{system}: {name} must be between 0 and 1, and is not for questions", bad)
    return MetricGroup(
        system=system,
        question_ids=ids,
        answers=[list(row["answers"]) for row in rows],
        clusters=[_cluster(row) for row in rows],
        columns=np.column_stack([*(100.0 * scores for scores in columns), np.ones(len(rows))]),
        statistics={
            name: mean_of(column, len(metrics)) for column, name in enumerate(metrics.values())
        },
    )


def _with_bleu(group: MetricGroup, rows: Sequence[Row]) -> MetricGroup:
    counts = bleu_statistics([row["prediction"] for row in rows], group.answers)
    start = group.columns.shape[1]

    def bleu(sums: FloatMatrix) -> FloatMatrix:
        return bleu_of(sums[:, start : start + STATISTICS])

    return MetricGroup(
        system=group.system,
        question_ids=group.question_ids,
        answers=group.answers,
        clusters=group.clusters,
        columns=np.hstack([group.columns, counts]),
        statistics={**group.statistics, "bleu": bleu},
    )


def _cluster(row: Row) -> str:
    """Questions about one document are resampled together; a question without one stands alone."""
    document, question = row["document_id"], row["question_id"]
    return f"question {question}" if document is None else f"document {document}"


def _aligned(group: MetricGroup, baseline: MetricGroup) -> FloatMatrix:
    """The baseline's columns in the order of the group's questions."""
    systems = f"{group.system} and {baseline.system}"
    refuse(
        f"{systems} were not asked the same questions; only one of them has",
        sorted(set(group.question_ids) ^ set(baseline.question_ids)),
    )
    place = {question_id: row for row, question_id in enumerate(baseline.question_ids)}
    order = [place[question_id] for question_id in group.question_ids]
    refuse(
        f"{systems} have different accepted answers for",
        [
            question_id
            for row, question_id in enumerate(group.question_ids)
            if group.answers[row] != baseline.answers[order[row]]
        ],
    )
    return baseline.columns[order]


def _difference(statistic: Statistic, width: int) -> Statistic:
    return lambda sums: statistic(sums[:, :width]) - statistic(sums[:, width:])
