"""The metrics alone, for files of predictions and references: `ragloop score`.

Predictions: a JSON object `{id: answer}`, or JSONL with `{"id", "prediction"}` or `{"id",
"answer"}` on each line. References: SQuAD v1 or v2 JSON, or JSONL with `{"id", "answers": [...]}`
and, if wanted, `"document"`. Each may be compressed (`.gz`, `.xz`). Rows are joined by id and
scored in the order of the ids. An empty answer or null declines to answer; a question without any
prediction counts as wrong and is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import DataError
from rag.evaluation.answer_scores import answer_scores
from rag.evaluation.bleu import bleu_signature
from rag.evaluation.no_answer import best_thresholds, declined
from rag.evaluation.score_inputs import (
    References,
    read_no_answer_scores,
    read_predictions,
    read_references,
)
from rag.evaluation.score_table import ScoreTable, score_table
from rag.evaluation.statistics import Interval, Resampling

#: A slice of fewer questions is shown and marked: its interval says little.
SMALL_SLICE = 30
_IDS_IN_A_MESSAGE = 5
_DECIMALS = 4


def score_files(
    predictions_path: Path,
    references_path: Path,
    *,
    resamples: int = 10000,
    confidence: float = 0.95,
    seed: int = 13,
    stem: bool = False,
    no_answer_scores: Path | None = None,
    no_answer_threshold: float | None = None,
    by: str | None = None,
    per_question: Path | None = None,
) -> dict[str, Any]:
    """`{"n_questions", "n_answerable", "metrics", "missing", "bleu_signature", ...}`.

    `metrics` has exact_match and f1 over all questions, bleu, rouge1, rouge2 and rougeL over the
    answerable ones, each `{"value", "low", "high"}` in percent; where some questions have no answer
    `splits` has those of `has_answer` and `no_answer`. `no_answer_scores`, a file, adds
    `no_answer`, the best thresholds; an answer scored above `no_answer_threshold` is declined
    before anything is counted. `by` names a key of the rows of the references and adds `slices`.
    `per_question` is written: a JSON line of scores for each question. Raises DataError, with every
    problem, for files that cannot be read, ids that occur twice and predictions for unknown ids.
    """
    if no_answer_threshold is not None and no_answer_scores is None:
        raise DataError("--no-answer-threshold needs --no-answer-scores FILE to compare it with")
    predictions = read_predictions(predictions_path)
    references = read_references(references_path, group_by=by)
    ids = references.question_ids
    _refuse_unknown(predictions, ids, predictions_path, references_path)
    texts = [predictions.get(question_id) for question_id in ids]
    found: dict[str, Any] = {}
    if no_answer_scores is not None:
        certainties = read_no_answer_scores(no_answer_scores, ids)
        found["no_answer"] = {
            "threshold": no_answer_threshold,
            **_best_thresholds(texts, references, certainties),
        }
        if no_answer_threshold is not None:
            texts = declined(texts, certainties, no_answer_threshold)
    table = score_table(texts, ids, references.answers, references.clusters, stem=stem)
    if per_question is not None:
        _write_lines(per_question, table)
    resampling = Resampling(resamples, confidence, seed)
    return {
        "n_questions": len(ids),
        "n_answerable": int(table.answerable.sum()),
        **_whole(table, resampling),
        **({} if by is None else {"slices": {by: _slices(table, references, resampling)}}),
        **found,
        "missing": [name for name, text in zip(ids, texts, strict=True) if text is None],
        "bleu_signature": bleu_signature([answers for answers in references.answers if answers]),
        "resampling": asdict(resampling),
    }


def _refuse_unknown(
    predictions: Mapping[str, str], ids: list[str], predictions_path: Path, references_path: Path
) -> None:
    unknown = sorted(predictions.keys() - set(ids))
    if unknown:
        shown = ", ".join(unknown[:_IDS_IN_A_MESSAGE])
        raise DataError(
            f"{predictions_path}: {len(unknown)} of {len(predictions)} ids are not in "
            f"{references_path}: {shown}{', ...' if len(unknown) > _IDS_IN_A_MESSAGE else ''}",
            hint="Give predictions and references of the same questions.",
        )


def _best_thresholds(
    texts: list[str | None], references: References, certainties: list[float]
) -> dict[str, float]:
    given = np.array([text is not None for text in texts])
    scores = answer_scores([text or "" for text in texts], references.answers) * given[:, None]
    answerable = np.array([bool(answers) for answers in references.answers])
    best = best_thresholds(scores, certainties, answerable, given)
    thresholds = {name: value for name, value in best.items() if name.endswith("_thresh")}
    return {name: round(value, _DECIMALS) for name, value in best.items()} | thresholds


def _whole(table: ScoreTable, resampling: Resampling) -> dict[str, Any]:
    """The metrics of all questions; `splits` by whether there is an answer, as SQuAD 2.0 has it."""
    answerable = table.answerable
    has_answer = table.intervals(answerable, resampling)
    if answerable.all():
        return {"metrics": _rounded(has_answer)}
    overall = has_answer | table.answer_intervals(answerable | True, resampling)
    no_answer = table.answer_intervals(~answerable, resampling)
    return {
        "metrics": _rounded(overall),
        "splits": {
            "has_answer": {"n": int(answerable.sum()), "metrics": _rounded(has_answer)},
            "no_answer": {"n": int((~answerable).sum()), "metrics": _rounded(no_answer)},
        },
    }


def _slices(table: ScoreTable, references: References, resampling: Resampling) -> dict[str, Any]:
    groups = np.array(references.groups)
    slices = {}
    for name in np.unique(groups):
        rows = groups == name
        count = int(rows.sum())
        slices[str(name)] = {
            "n": count,
            "small": count < SMALL_SLICE,
            "metrics": _rounded(table.intervals(rows, resampling)),
        }
    return slices


def _rounded(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {
        name: {end: round(value, _DECIMALS) for end, value in asdict(interval).items()}
        for name, interval in intervals.items()
    }


def _write_lines(path: Path, table: ScoreTable) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(table.lines())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None
