"""From answers to `predictions.parquet`, and from there to `metrics.json`.

Each row of `records.PREDICTIONS` holds one answer of one system with its own scores, so whatever is
reported can be computed again from the table alone. Two systems are compared question by question,
joined by id. Exact match, F1 and abstention count over all questions; BLEU and ROUGE-L over the
answerable ones; recall and MRR over those that retrieval can be scored on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import pyarrow as pa

from rag.errors import MetricError
from rag.evaluation.answer_scores import exact_match, token_f1
from rag.evaluation.metric_groups import (
    RETRIEVAL_METRICS,
    MetricGroup,
    group_intervals,
    metric_groups,
    refuse,
    repeated,
)
from rag.evaluation.ranking import CUTOFFS, recall_at, reciprocal_rank
from rag.evaluation.rouge import rouge
from rag.evaluation.statistics import Interval, Resampling
from rag.records import Answer, Passage, Question, sorted_json
from rag.retrieval.relevance import has_gold, is_relevant

Value = TypeVar("Value")
#: (passage text, its document id, question) -> whether the passage holds the answer.
Relevance = Callable[[str, str, Question], bool]

#: Decimals of every number in metrics.json, which is in percent.
DECIMALS = 4


def prediction_rows(
    system: str,
    questions: Sequence[Question],
    answers: Mapping[str, Answer] | Sequence[Answer],
    *,
    retrieved: Mapping[str, Sequence[Passage]] | Sequence[Sequence[Passage]] | None,
    relevant: Relevance | None = None,
    score_retrieval: bool = True,
) -> list[dict[str, Any]]:
    """One row of `records.PREDICTIONS` for each question, in the order of the questions.

    `answers` and `retrieved` are keyed by question id, or are sequences as long as `questions` and
    in their order. `retrieved` is None for a system that does not retrieve; for others it holds at
    least five passages a question, best first, wherever the corpus has as many, or recall@5 is that
    of fewer. With `score_retrieval` false they are evidence alone, having been found by no search.
    Evidence takes its posterior from that of the answer. Raises MetricError naming the questions
    that occur twice, or miss an answer, or whose answer contradicts itself or is not finite.
    """
    judge = relevant or is_relevant
    ids = [question.question_id for question in questions]
    refuse(f"{system}: questions that occur twice", repeated(ids))
    answer_of = _by_question(f"{system}: answers", ids, answers)
    passages_of = None if retrieved is None else _by_question(f"{system}: passages", ids, retrieved)
    rows = []
    for question in questions:
        answer = answer_of[question.question_id]
        passages = None if passages_of is None else passages_of[question.question_id]
        _check(system, question, answer, passages)
        posterior = {item.chunk_id: item.posterior for item in answer.evidence}
        scored = passages if score_retrieval else None
        accepted = question.answers if question.answerable else ()
        rows.append(
            {
                "system": system,
                "question_id": question.question_id,
                "question": question.text,
                "answers": list(accepted),
                "document_id": question.document_id,
                "answerable": question.answerable,
                "language": question.language,
                "slices": sorted_json(dict(question.slices)),
                "prediction": answer.text,
                "score": answer.score,
                "abstained": answer.abstained,
                "evidence": [
                    _evidence(passage, posterior.get(passage.chunk_id))
                    for passage in passages or ()
                ],
                "exact_match": exact_match(answer.text, accepted),
                "f1": token_f1(answer.text, accepted),
                "rougeL": rouge(answer.text, accepted)["rougeL"],
                **_retrieval_scores(question, scored, judge),
            }
        )
    return rows


def summarize(
    predictions: pa.Table, *, resamples: int, confidence: float, seed: int
) -> dict[str, Any]:
    """The content of metrics.json, in percent.

    `{"n_questions": N, "confidence": 0.95, "systems": {system: {metric: {"value", "low", "high"}}},
    "differences": {baseline: {metric: {...}}}}`; differences are paired: the first system of the
    table minus each other one. A system that does not retrieve has no retrieval metrics; any other
    metric that cannot be computed raises MetricError.
    """
    systems = _groups_by_system(predictions)
    first, *others = systems
    resampling = Resampling(resamples, confidence, seed)
    return {
        "n_questions": len(systems[first][0].question_ids),
        "confidence": confidence,
        "systems": {
            name: _rounded(group_intervals(group, None, resampling) for group in groups)
            for name, groups in systems.items()
        },
        "differences": {
            name: _rounded(
                group_intervals(ours, theirs, resampling)
                for ours, theirs in _paired(systems[first], systems[name])
            )
            for name in others
        },
    }


def compare_systems(
    challenger: pa.Table, champion: pa.Table, *, resamples: int, confidence: float, seed: int
) -> dict[str, Interval]:
    """Paired differences challenger - champion of every metric both have, in percentage points.

    Each table holds one system. Raises MetricError when the tables do not ask the same questions
    with the same accepted answers.
    """
    sides: list[list[MetricGroup]] = []
    for role, table in (("challenger", challenger), ("champion", champion)):
        systems = _groups_by_system(table)
        if len(systems) != 1:
            raise MetricError(f"{role}: expected one system, got {', '.join(systems)}")
        sides += systems.values()
    differences: dict[str, Interval] = {}
    for ours, theirs in _paired(*sides):
        differences |= group_intervals(ours, theirs, Resampling(resamples, confidence, seed))
    return differences


def _groups_by_system(predictions: pa.Table) -> dict[str, list[MetricGroup]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in predictions.to_pylist():
        rows.setdefault(row["system"], []).append(row)
    if not rows:
        raise MetricError("the predictions table is empty: there is nothing to score")
    return {system: metric_groups(system, of_system) for system, of_system in rows.items()}


def _paired(
    ours: Sequence[MetricGroup], theirs: Sequence[MetricGroup]
) -> Iterable[tuple[MetricGroup, MetricGroup]]:
    """Groups come in one order; the last, retrieval, may be absent on either side."""
    return zip(ours, theirs, strict=False)


def _rounded(found: Iterable[dict[str, Interval]]) -> dict[str, dict[str, float]]:
    return {
        name: {end: round(value, DECIMALS) + 0.0 for end, value in asdict(interval).items()}
        for intervals in found
        for name, interval in intervals.items()
    }


def _by_question(
    what: str, ids: Sequence[str], given: Mapping[str, Value] | Sequence[Value]
) -> Mapping[str, Value]:
    if not isinstance(given, Mapping):
        if len(given) != len(ids):
            raise MetricError(f"{what}: {len(given)} for {len(ids)} questions")
        return dict(zip(ids, given, strict=True))
    refuse(f"{what}: missing for questions", [item for item in ids if item not in given])
    refuse(f"{what}: given for unknown questions", sorted(set(given) - set(ids)))
    return given


def _check(
    system: str, question: Question, answer: Answer, passages: Sequence[Passage] | None
) -> None:
    where = f"{system}: question {question.question_id}"
    if answer.abstained and answer.text.strip():
        raise MetricError(f"{where}: abstained, and yet answers {answer.text!r}")
    if not math.isfinite(answer.score):
        raise MetricError(f"{where}: the answer's score is {answer.score}")
    ranks = [passage.rank for passage in passages or ()]
    if ranks != list(range(1, len(ranks) + 1)):
        raise MetricError(f"{where}: passages must be ranked 1, 2, ... in order, got {ranks}")
    for passage in passages or ():
        if not math.isfinite(passage.score):
            raise MetricError(f"{where}: passage {passage.chunk_id} has score {passage.score}")
    for item in answer.evidence:
        if item.posterior is not None and not math.isfinite(item.posterior):
            raise MetricError(f"{where}: passage {item.chunk_id} has posterior {item.posterior}")


def _evidence(passage: Passage, posterior: float | None) -> dict[str, Any]:
    return {
        "chunk_id": passage.chunk_id,
        "document_id": passage.document_id,
        "text": passage.text,
        "score": passage.score,
        "rank": passage.rank,
        "posterior": posterior,
    }


def _retrieval_scores(
    question: Question, passages: Sequence[Passage] | None, judge: Relevance
) -> dict[str, float | None]:
    if passages is None or not has_gold(question):
        return dict.fromkeys(RETRIEVAL_METRICS)
    found = [judge(passage.text, passage.document_id, question) for passage in passages]
    recall = {f"recall@{cutoff}": recall_at(found, cutoff) for cutoff in CUTOFFS}
    return {**recall, "mrr": reciprocal_rank(found)}
