"""Exact match as an `evaluate` module: SQuAD's rules, extended to any script."""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np

from rag.evaluation.answer_scores import exact_match
from rag.evaluation.metrics.module_info import accepted_answers, text_metric_info


class ExactMatch(evaluate.Metric):
    """`compute(predictions, references)` -> `{"exact_match": percent, "scores": [0 or 1, ...]}`."""

    def _info(self) -> Any:
        return text_metric_info(
            "Share of answers that equal an accepted answer after normalisation, in percent.",
            "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016",
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]] | list[str]
    ) -> dict[str, Any]:
        accepted = accepted_answers(references)
        scores = [exact_match(text, gold) for text, gold in zip(predictions, accepted, strict=True)]
        return {"exact_match": 100.0 * float(np.mean(scores)), "scores": scores}
