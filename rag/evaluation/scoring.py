"""From answers to `predictions.parquet`, and from there to the numbers of every system.

Each row of `records.PREDICTIONS` holds one answer of one system with its own scores, so whatever is
reported can be computed again from the table alone. Two systems are compared question by question,
joined by id. Exact match, F1 and abstention count over all questions; BLEU, chrF and ROUGE over the
answerable ones; recall, MRR and the like over those that retrieval can be scored on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from rag.errors import MetricError
from rag.evaluation.answer_scores import exact_match, token_f1
from rag.evaluation.chrf import chrf
from rag.evaluation.evidence import evidence_exact_match
from rag.evaluation.metric_groups import (
    DECIMALS,
    RANKING_METRICS,
    RETRIEVAL_METRICS,
    Groups,
    MetricGroup,
    differences,
    joint_intervals,
    metric_groups,
    refuse,
    repeated,
    rounded,
)
from rag.evaluation.ranking import CUTOFFS, ndcg_at, precision_at, recall_at, reciprocal_rank
from rag.evaluation.rouge import rouge
from rag.evaluation.statistics import Interval, Resampling
from rag.evaluation.version import metrics_version, one_version
from rag.records import Answer, Passage, Question, sorted_json
from rag.retrieval.relevance import has_gold, is_relevant

__all__ = [
    "DECIMALS",
    "aligned_groups",
    "compare_systems",
    "prediction_rows",
    "rows_by_system",
    "summarize",
]

Value = TypeVar("Value")
#: (passage text, its document id, question) -> whether the passage holds the answer.
Relevance = Callable[[str, str, Question], bool]


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
                **rouge(answer.text, accepted),
                "chrf": chrf(answer.text, accepted),
                **_reading_scores(question, answer, judge, reads=passages is not None),
                **_retrieval_scores(question, scored, judge),
                "error": None,
                "metrics_version": metrics_version(),
            }
        )
    return rows


def summarize(
    predictions: pa.Table, *, resamples: int, confidence: float, seed: int
) -> dict[str, Any]:
    """Every metric of every system, in percent: what metrics.json begins with.

    `{"n_questions": N, "confidence": 0.95, "metrics_version": "1-...", "systems": {system: {metric:
    {"value", "low", "high"}}}, "differences": {baseline: {metric: {...}}}}`; differences are
    paired: the first system of the table minus each other one. A system that does not retrieve has
    no retrieval metrics; any other metric that cannot be computed raises MetricError, and so do
    rows that were scored by different rules.
    """
    rows = rows_by_system(predictions)
    version = one_version([row["metrics_version"] for of in rows.values() for row in of])
    systems = aligned_groups(rows)
    first, *others = systems
    level, change = joint_intervals(systems, others, Resampling(resamples, confidence, seed))
    return {
        "n_questions": len(rows[first]),
        "confidence": confidence,
        "metrics_version": version,
        "systems": rounded(level),
        "differences": rounded(change),
    }


def compare_systems(
    challenger: pa.Table, champion: pa.Table, *, resamples: int, confidence: float, seed: int
) -> dict[str, Interval]:
    """Paired differences challenger - champion of every metric both have, in percentage points.

    Each table holds one system. Raises MetricError when the tables do not ask the same questions
    with the same accepted answers, or were scored by different rules.
    """
    sides: list[Groups] = []
    versions: list[str | None] = []
    for role, table in (("challenger", challenger), ("champion", champion)):
        systems = rows_by_system(table)
        if len(systems) != 1:
            raise MetricError(f"{role}: expected one system, got {', '.join(systems)}")
        ((name, rows),) = systems.items()
        versions += [row["metrics_version"] for row in rows]
        sides.append(metric_groups(name, rows))
    one_version(versions)
    ours, theirs = sides
    resampling = Resampling(resamples, confidence, seed)
    found: dict[str, Interval] = {}
    for kind, group in ours.items():
        if kind in theirs:
            other = theirs[kind].aligned_with(group)
            for metrics in differences(group, [other], resampling).values():
                found |= metrics
    return found


def rows_by_system(predictions: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """The rows of a predictions table by system, in the table's order."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in predictions.to_pylist():
        rows.setdefault(row["system"], []).append(row)
    if not rows:
        raise MetricError("the predictions table is empty: there is nothing to score")
    return rows


def aligned_groups(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Groups]:
    """The metric groups of every system, each in the order of the first one that has it."""
    systems = {name: metric_groups(name, of) for name, of in rows.items()}
    leading: dict[str, MetricGroup] = {}
    for groups in systems.values():
        leading = {**groups, **leading}
    return {
        name: {kind: group.aligned_with(leading[kind]) for kind, group in groups.items()}
        for name, groups in systems.items()
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


def _reading_scores(
    question: Question, answer: Answer, judge: Relevance, *, reads: bool
) -> dict[str, Any]:
    """What is said of the passages that the reader had before it, which may be fewer than found."""
    if not reads:
        return {"evidence_em": None, "gold_read": None}
    read = sorted(answer.evidence, key=lambda item: item.rank)
    held = [judge(item.text, item.document_id, question) for item in read]
    return {
        "evidence_em": evidence_exact_match(
            answer.text,
            question.answers if question.answerable else (),
            [item.text for item in read],
            [item.posterior for item in read],
        ),
        "gold_read": any(held) if has_gold(question) else None,
    }


def _retrieval_scores(
    question: Question, passages: Sequence[Passage] | None, judge: Relevance
) -> dict[str, Any]:
    if passages is None or not has_gold(question):
        return dict.fromkeys((*RETRIEVAL_METRICS, *RANKING_METRICS, "gold_rank"))
    found = [judge(passage.text, passage.document_id, question) for passage in passages]
    # Relevant passages that were not retrieved are not known: nDCG is of those that were.
    gains = [float(good) for good in found]
    return {
        **{f"recall@{cutoff}": recall_at(found, cutoff) for cutoff in CUTOFFS},
        "mrr": reciprocal_rank(found),
        "precision@5": precision_at(found, 5),
        "ndcg@5": ndcg_at(gains, 5, gains) if any(found) else 0.0,
        "gold_rank": found.index(True) + 1 if any(found) else None,
    }
