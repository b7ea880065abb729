"""The scores of every question in one matrix, and the intervals of any part of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.answer_scores import answer_scores
from rag.evaluation.bleu import STATISTICS, bleu_of, bleu_statistics
from rag.evaluation.rouge import ROUGE_TYPES, rouge_scores
from rag.evaluation.statistics import (
    FloatMatrix,
    Interval,
    Resampling,
    bootstrap_intervals,
    mean_of,
)
from rag.evaluation.token_counts import IntVector

BoolVector = npt.NDArray[np.bool_]

#: Over all questions.
ANSWER_METRICS = ("exact_match", "f1")
#: Over the questions that have an answer.
OVERLAP_METRICS = ("bleu", *ROUGE_TYPES)

#: Columns of means, in percent; then one of ones, then the counts of BLEU.
_MEANS = (*ANSWER_METRICS, *ROUGE_TYPES)
_ONES = len(_MEANS)
_BLEU = _ONES + 1
_IDS_IN_A_MESSAGE = 5


@dataclass(frozen=True)
class ScoreTable:
    """N questions, sorted by id: their scores, which have an answer, and their clusters.

    `columns` is (N, M); `clusters` (N,) numbers what is resampled together.
    """

    question_ids: Sequence[str]
    answerable: BoolVector
    clusters: IntVector
    columns: FloatMatrix

    def intervals(self, rows: BoolVector, resampling: Resampling) -> dict[str, Interval]:
        """Every metric of the questions for which `rows` (N,) holds, in percent.

        BLEU and ROUGE count over those that have an answer, and are absent where none has.
        """
        answerable = rows & self.answerable
        if (answerable == rows).all():
            return self._resampled(rows, (*ANSWER_METRICS, *OVERLAP_METRICS), resampling)
        found = self._resampled(rows, ANSWER_METRICS, resampling)
        if answerable.any():
            found |= self._resampled(answerable, OVERLAP_METRICS, resampling)
        return found

    def answer_intervals(self, rows: BoolVector, resampling: Resampling) -> dict[str, Interval]:
        """Exact match and F1 alone."""
        return self._resampled(rows, ANSWER_METRICS, resampling)

    def lines(self) -> Iterator[str]:
        """A JSON object for each question: its id and scores, 0 to 1, null where undefined."""
        means = self.columns[:, :_ONES] / 100.0
        for question_id, answerable, scores in zip(
            self.question_ids, self.answerable, means, strict=True
        ):
            row = dict(zip(_MEANS, scores.tolist(), strict=True))
            undefined = {} if answerable else dict.fromkeys(ROUGE_TYPES)
            yield json.dumps({"id": question_id, **row, **undefined}, ensure_ascii=False) + "\n"

    def _resampled(
        self, rows: BoolVector, metrics: Sequence[str], resampling: Resampling
    ) -> dict[str, Interval]:
        statistics = {
            name: mean_of(_MEANS.index(name), _ONES)
            if name in _MEANS
            else lambda sums: bleu_of(sums[:, _BLEU:])
            for name in metrics
        }
        sums = self._sums(rows)
        return bootstrap_intervals(sums, statistics, None, resampling, bounds=(0.0, 100.0))

    def _sums(self, rows: BoolVector) -> FloatMatrix:
        """The chosen rows added up by cluster, (G, M), in the order of each cluster's first id."""
        columns = self.columns if rows.all() else self.columns[rows]
        numbers, owner = np.unique(self.clusters[rows], return_inverse=True)
        if len(numbers) == len(columns):
            return columns
        sums = np.empty((len(numbers), columns.shape[1]))
        for place, column in enumerate(columns.T):
            sums[:, place] = np.bincount(owner, weights=column, minlength=len(numbers))
        return sums


def score_table(
    texts: Sequence[str | None],
    question_ids: Sequence[str],
    answers: Sequence[Sequence[str]],
    clusters: Sequence[str],
    *,
    stem: bool,
) -> ScoreTable:
    """Scores every answer; None is a missing prediction, wrong even where silence is right."""
    answerable = np.array([bool(accepted) for accepted in answers])
    if not answerable.any():
        raise MetricError("no question is answerable: BLEU and ROUGE are undefined")
    given = np.array([text is not None for text in texts])
    columns = np.zeros((len(texts), _BLEU + STATISTICS))
    columns[:, _ONES] = 1.0
    spoken = [text or "" for text in texts]
    columns[:, : len(ANSWER_METRICS)] = 100.0 * answer_scores(spoken, answers) * given[:, None]
    rows = np.flatnonzero(answerable).tolist()
    predicted, accepted = [spoken[row] for row in rows], [answers[row] for row in rows]
    rouge = rouge_scores(predicted, accepted, stem=stem)
    for kind in ROUGE_TYPES:
        columns[rows, _MEANS.index(kind)] = 100.0 * rouge[kind]
    columns[rows, _BLEU:] = bleu_statistics(predicted, accepted)
    _refuse_not_finite(columns, question_ids)
    numbers: dict[str, int] = {}
    owners = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    return ScoreTable(question_ids, answerable, np.array(owners, dtype=np.int64), columns)


def _refuse_not_finite(columns: FloatMatrix, question_ids: Sequence[str]) -> None:
    wrong = ~np.isfinite(columns)
    if wrong.any():
        names = [*_MEANS, "count", *["bleu"] * STATISTICS]
        metrics = sorted({names[column] for column in np.flatnonzero(wrong.any(axis=0))})
        ids = [question_ids[row] for row in np.flatnonzero(wrong.any(axis=1)).tolist()]
        raise MetricError(
            f"{', '.join(metrics)}: not finite for {len(ids)} questions: "
            f"{', '.join(ids[:_IDS_IN_A_MESSAGE])}"
        )
