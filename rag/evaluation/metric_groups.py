"""The metrics of a predictions table as columns that can be resampled, alone or in pairs.

Metrics that count over the same questions form a group: all questions (exact match, F1,
abstention), the answerable ones (BLEU, chrF, ROUGE), all for a system that reads passages (exact
match with the evidence), those with retrieval scores (recall, MRR, nDCG). A group is a matrix with
one row a question; each metric is a function of its column sums. Groups of several systems over the
same questions are resampled together, so documents are drawn once for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rag.errors import MetricError
from rag.evaluation import bleu, chrf
from rag.evaluation.statistics import (
    FloatMatrix,
    FloatVector,
    Interval,
    Resampling,
    Statistic,
    bootstrap_intervals,
    mean_of,
)

Row = Mapping[str, Any]
#: `{system: {metric: interval}}`
Intervals = dict[str, dict[str, Interval]]

#: Retrieval scores that a row has together or not at all.
RETRIEVAL_METRICS = ("recall@1", "recall@5", "mrr")
#: What is added to them by a system whose whole list of passages was looked at.
RANKING_METRICS = ("precision@5", "ndcg@5")
#: Column of the predictions table -> name of its mean in metrics.json.
_OVER_ALL = {"exact_match": "exact_match", "f1": "f1", "abstained": "abstention_rate"}
_OVER_ANSWERABLE = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rougeL"}
_OVER_READ = {"evidence_em": "evidence_em"}
_OVER_RETRIEVED = {name: name for name in (*RETRIEVAL_METRICS, *RANKING_METRICS)}
_NAMED_IN_A_MESSAGE = 5
#: Decimals of every number in metrics.json, which is in percent.
DECIMALS = 4


@dataclass(frozen=True)
class MetricGroup:
    """Some metrics of one system: `columns` is (N, M), scores in percent and then counts."""

    system: str
    question_ids: Sequence[str]
    answers: Sequence[Sequence[str]]
    clusters: Sequence[str]
    columns: FloatMatrix
    statistics: Mapping[str, Statistic]

    def scores(self, metric: str) -> FloatVector:
        """Each question's own value, (N,): its score, or a corpus metric of it alone."""
        values: FloatVector = self.statistics[metric](self.columns)
        return values

    def of(self, question_ids: Iterable[str]) -> MetricGroup | None:
        """The same metrics of these questions alone, those that the group has; None for none."""
        wanted = set(question_ids)
        places = [row for row, item in enumerate(self.question_ids) if item in wanted]
        return self._rows(places) if places else None

    def aligned_with(self, other: MetricGroup) -> MetricGroup:
        """The same in the other's order; MetricError where the questions are not the same."""
        systems = f"{other.system} and {self.system}"
        refuse(
            f"{systems} were not asked the same questions; only one of them has",
            sorted(set(other.question_ids) ^ set(self.question_ids)),
        )
        place = {question_id: row for row, question_id in enumerate(self.question_ids)}
        found = self._rows([place[question_id] for question_id in other.question_ids])
        refuse(
            f"{systems} have different accepted answers for",
            [
                question_id
                for row, question_id in enumerate(other.question_ids)
                if other.answers[row] != found.answers[row]
            ],
        )
        return found

    def _rows(self, places: Sequence[int]) -> MetricGroup:
        return replace(
            self,
            question_ids=[self.question_ids[row] for row in places],
            answers=[self.answers[row] for row in places],
            clusters=[self.clusters[row] for row in places],
            columns=self.columns[places],
        )


#: The groups of one system by the questions they count over.
Groups = Mapping[str, MetricGroup]


def metric_groups(system: str, rows: Sequence[Row]) -> Groups:
    """Groups `all` and `answerable`, and where the system reads and retrieves, `read`, `retrieved`.

    Raises MetricError that names the questions whose scores are missing or impossible.
    """
    refuse(f"{system}: questions that occur twice", repeated(row["question_id"] for row in rows))
    answerable = [row for row in rows if row["answerable"]]
    if not answerable:
        raise MetricError(f"{system}: no question is answerable: BLEU and ROUGE are undefined")
    groups = {
        "all": _group(system, rows, _OVER_ALL),
        "answerable": _with_corpus_metrics(
            _group(system, answerable, _OVER_ANSWERABLE), [row["prediction"] for row in answerable]
        ),
    }
    if any(row["evidence_em"] is not None for row in rows):
        groups["read"] = _group(system, rows, _OVER_READ)
    retrieved = [row for row in rows if _has_any(row, RETRIEVAL_METRICS)]
    if retrieved:
        gaps = [row["question_id"] for row in retrieved if not _has_all(row, RETRIEVAL_METRICS)]
        refuse(f"{system}: questions with only some of the retrieval scores", gaps)
        ranked = any(_has_any(row, RANKING_METRICS) for row in retrieved)
        known = _OVER_RETRIEVED if ranked else {name: name for name in RETRIEVAL_METRICS}
        groups["retrieved"] = _group(system, retrieved, known)
    return groups


def levels(groups: Sequence[MetricGroup], resampling: Resampling) -> Intervals:
    """Intervals of every metric of these groups, which have the same questions in one order."""
    columns, parts = _side_by_side(groups)
    statistics = {
        (group.system, name): _shifted(made, part)
        for group, part in zip(groups, parts, strict=True)
        for name, made in group.statistics.items()
    }
    return _intervals(columns, statistics, groups[0], resampling, bounds=(0.0, 100.0))


def differences(
    group: MetricGroup, others: Sequence[MetricGroup], resampling: Resampling
) -> Intervals:
    """Paired differences group - other by other system; all have the same questions in order."""
    if not others:
        return {}
    columns, (own, *parts) = _side_by_side([group, *others])
    statistics = {
        (other.system, name): _minus(_shifted(group.statistics[name], own), _shifted(made, part))
        for other, part in zip(others, parts, strict=True)
        for name, made in other.statistics.items()
        if name in group.statistics
    }
    return _intervals(columns, statistics, group, resampling, bounds=(-100.0, 100.0))


def joint_intervals(
    systems: Mapping[str, Groups], compared: Sequence[str], resampling: Resampling
) -> tuple[Intervals, Intervals]:
    """Levels of every system, and differences of the first one minus each of `compared`.

    A kind of group that a system does not have gives it no metrics.
    """
    first = next(iter(systems))
    level: Intervals = {name: {} for name in systems}
    change: Intervals = {name: {} for name in compared}
    for kind in dict.fromkeys(kind for groups in systems.values() for kind in groups):
        groups = [of[kind] for of in systems.values() if kind in of]
        for name, metrics in levels(groups, resampling).items():
            level[name] |= metrics
        if kind in systems[first]:
            others = [systems[name][kind] for name in compared if kind in systems[name]]
            for name, metrics in differences(systems[first][kind], others, resampling).items():
                change[name] |= metrics
    return level, change


def rounded(intervals: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, Any]]:
    """Intervals as they stand in metrics.json."""
    return {
        system: {
            metric: {end: round(value, DECIMALS) + 0.0 for end, value in asdict(found).items()}
            for metric, found in metrics.items()
        }
        for system, metrics in intervals.items()
    }


def repeated(items: Iterable[str]) -> list[str]:
    """Those that occur more than once, in order of first occurrence."""
    return [item for item, times in Counter(items).items() if times > 1]


def refuse(what: str, names: Sequence[str]) -> None:
    """Raises MetricError with the first few names, if there are any."""
    if names:
        shown = ", ".join(map(str, names[:_NAMED_IN_A_MESSAGE]))
        more = len(names) - _NAMED_IN_A_MESSAGE
        raise MetricError(f"{what}: {shown}" + (f" and {more} more" if more > 0 else ""))


def _has_any(row: Row, names: Sequence[str]) -> bool:
    return any(row[name] is not None for name in names)


def _has_all(row: Row, names: Sequence[str]) -> bool:
    return all(row[name] is not None for name in names)


def _group(system: str, rows: Sequence[Row], metrics: Mapping[str, str]) -> MetricGroup:
    ids = [row["question_id"] for row in rows]
    for name in metrics:
        gaps = [row["question_id"] for row in rows if row[name] is None]
        refuse(f"{system}: {name} is missing for questions", gaps)
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


def _with_corpus_metrics(group: MetricGroup, predictions: Sequence[str]) -> MetricGroup:
    """BLEU and chrF are computed from the texts, whatever a table's columns say."""
    counts = [
        bleu.bleu_statistics(predictions, group.answers),
        chrf.chrf_statistics(predictions, group.answers),
    ]
    columns = [group.columns, *counts]
    ends = np.cumsum([part.shape[1] for part in columns]).tolist()
    return replace(
        group,
        columns=np.hstack(columns),
        statistics={
            **group.statistics,
            "bleu": _shifted(bleu.bleu_of, slice(ends[0], ends[1])),
            "chrf": _shifted(chrf.chrf_of, slice(ends[1], ends[2])),
        },
    )


def _cluster(row: Row) -> str:
    """Questions about one document are resampled together; a question without one stands alone."""
    document, question = row["document_id"], row["question_id"]
    return f"question {question}" if document is None else f"document {document}"


def _side_by_side(groups: Sequence[MetricGroup]) -> tuple[FloatMatrix, list[slice]]:
    """All columns as one matrix, and where those of each group are."""
    widths = [group.columns.shape[1] for group in groups]
    ends = np.cumsum(widths).tolist()
    parts = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
    return np.hstack([group.columns for group in groups]), parts


def _intervals(
    columns: FloatMatrix,
    statistics: Mapping[tuple[str, str], Statistic],
    group: MetricGroup,
    resampling: Resampling,
    *,
    bounds: tuple[float, float],
) -> Intervals:
    named = {f"{system}: {metric}": made for (system, metric), made in statistics.items()}
    found = bootstrap_intervals(columns, named, group.clusters, resampling, bounds=bounds)
    intervals: Intervals = {}
    for system, metric in statistics:
        intervals.setdefault(system, {})[metric] = found[f"{system}: {metric}"]
    return intervals


def _shifted(statistic: Callable[[FloatMatrix], FloatVector], part: slice) -> Statistic:
    return lambda sums: statistic(sums[:, part])


def _minus(first: Statistic, second: Statistic) -> Statistic:
    return lambda sums: first(sums) - second(sums)
