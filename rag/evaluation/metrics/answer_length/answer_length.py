"""Lengths of answers and the share of empty ones as an `evaluate` module."""

from __future__ import annotations

from typing import Any

import evaluate

from rag.evaluation.lengths import answer_lengths
from rag.evaluation.metrics.module_info import metric_info


class AnswerLength(evaluate.Metric):
    """`compute(predictions)` -> `{"tokens": mean, "characters": mean, "empty_rate": percent,

    "scores": {"tokens": [...], "characters": [...], "empty": [0 or 1, ...]}}`.
    """

    def _info(self) -> Any:
        from datasets import Features, Value

        return metric_info(
            "Mean number of tokens and characters of answers, and the share of empty ones in "
            "percent. Tokens are those that exact match and F1 compare.",
            "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016",
            "\nArgs:\n    predictions: one answer for each example.\n",
            Features({"predictions": Value("string")}),
        )

    def _compute(self, predictions: list[str]) -> dict[str, Any]:
        lengths = answer_lengths(predictions)
        return {
            "tokens": lengths.mean_tokens,
            "characters": lengths.mean_characters,
            "empty_rate": 100.0 * lengths.empty_rate,
            "scores": {
                "tokens": lengths.tokens.tolist(),
                "characters": lengths.characters.tolist(),
                "empty": lengths.empty.astype(int).tolist(),
            },
        }
