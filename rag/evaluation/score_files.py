"""The metrics alone, for files of predictions and references: `ragloop score`.

Predictions: a JSON object `{id: answer}`, or JSONL with `{"id", "prediction"}` or `{"id",
"answer"}` on each line. References: SQuAD v1 or v2 JSON, or JSONL with `{"id", "answers": [...]}`
and, if wanted, `"document"`. Each may be compressed (`.gz`, `.xz`). Rows are joined by id. An empty
answer or null declines to answer; a question without any prediction counts as wrong and is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import DataError, MetricError
from rag.evaluation.answer_scores import exact_match, token_f1
from rag.evaluation.bleu import bleu_of, bleu_signature, bleu_statistics
from rag.evaluation.rouge import ROUGE_TYPES, rouge_scores
from rag.evaluation.score_inputs import Reference, read_predictions, read_references
from rag.evaluation.statistics import Interval, Resampling, bootstrap_intervals, mean_of

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
) -> dict[str, Any]:
    """`{"n_questions", "n_answerable", "metrics": {...}, "missing": [ids], "bleu_signature"}`.

    `metrics` has exact_match and f1 over all questions, bleu, rouge1, rouge2 and rougeL over the
    answerable ones, each `{"value", "low", "high"}` in percent. Raises DataError, with every
    problem, for files that cannot be read, ids that occur twice and predictions for unknown ids.
    """
    references = read_references(references_path)
    predictions = read_predictions(predictions_path)
    known = {reference.question_id for reference in references}
    unknown = sorted(set(predictions) - known)
    if unknown:
        shown = ", ".join(unknown[:_IDS_IN_A_MESSAGE])
        raise DataError(
            f"{predictions_path}: {len(unknown)} of {len(predictions)} ids are not in "
            f"{references_path}: {shown}{', ...' if len(unknown) > _IDS_IN_A_MESSAGE else ''}",
            hint="Give predictions and references of the same questions.",
        )
    texts = [predictions.get(reference.question_id) for reference in references]
    resampling = Resampling(resamples, confidence, seed)
    found = _answer_metrics(texts, references, resampling) | _overlap_metrics(
        texts, references, resampling, stem=stem
    )
    answerable = [reference.answers for reference in references if reference.answers]
    return {
        "n_questions": len(references),
        "n_answerable": len(answerable),
        "metrics": {
            name: {end: round(value, _DECIMALS) for end, value in asdict(interval).items()}
            for name, interval in found.items()
        },
        "missing": [
            reference.question_id
            for reference, text in zip(references, texts, strict=True)
            if text is None
        ],
        "bleu_signature": bleu_signature(answerable),
    }


def _answer_metrics(
    texts: Sequence[str | None], references: Sequence[Reference], resampling: Resampling
) -> dict[str, Interval]:
    scores = np.zeros((len(references), 2))  # a missing prediction stays at 0
    for row, (text, reference) in enumerate(zip(texts, references, strict=True)):
        if text is not None:
            scores[row] = exact_match(text, reference.answers), token_f1(text, reference.answers)
    return bootstrap_intervals(
        np.column_stack([100.0 * scores, np.ones(len(references))]),
        {"exact_match": mean_of(0, 2), "f1": mean_of(1, 2)},
        [reference.cluster for reference in references],
        resampling,
        bounds=(0.0, 100.0),
    )


def _overlap_metrics(
    texts: Sequence[str | None],
    references: Sequence[Reference],
    resampling: Resampling,
    *,
    stem: bool,
) -> dict[str, Interval]:
    scored = [
        (text or "", reference)
        for text, reference in zip(texts, references, strict=True)
        if reference.answers
    ]
    if not scored:
        raise MetricError("no question is answerable: BLEU and ROUGE are undefined")
    predicted = [text for text, _ in scored]
    accepted = [reference.answers for _, reference in scored]
    rouge = rouge_scores(predicted, accepted, stem=stem)
    columns = [*(100.0 * rouge[kind] for kind in ROUGE_TYPES), np.ones(len(scored))]
    width = len(columns)
    return bootstrap_intervals(
        np.hstack([np.column_stack(columns), bleu_statistics(predicted, accepted)]),
        {
            "bleu": lambda sums: bleu_of(sums[:, width:]),
            **{kind: mean_of(column, width - 1) for column, kind in enumerate(ROUGE_TYPES)},
        },
        [reference.cluster for _, reference in scored],
        resampling,
        bounds=(0.0, 100.0),
    )
