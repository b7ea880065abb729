"""Token F1 as an `evaluate` module: SQuAD's rules, extended to any script."""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np

from rag.evaluation.answer_scores import token_f1
from rag.evaluation.metrics.module_info import accepted_answers, text_metric_info


class TokenF1(evaluate.Metric):
    """`compute(predictions, references)` -> `{"f1": percent, "scores": [0.0 to 1.0, ...]}`."""

    def _info(self) -> Any:
        return text_metric_info(
            "Mean F1 of the tokens shared with the best accepted answer, in percent.",
            "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016",
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]] | list[str]
    ) -> dict[str, Any]:
        accepted = accepted_answers(references)
        scores = [token_f1(text, gold) for text, gold in zip(predictions, accepted, strict=True)]
        return {"f1": 100.0 * float(np.mean(scores)), "scores": scores}
