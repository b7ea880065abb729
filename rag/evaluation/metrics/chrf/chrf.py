"""Corpus chrF as an `evaluate` module: sacrebleu's chrF2, resampled like BLEU."""

from __future__ import annotations

from typing import Any

import evaluate

from rag.evaluation.chrf import chrf_of, chrf_signature, chrf_statistics
from rag.evaluation.metrics.module_info import accepted_answers, text_metric_info


class Chrf(evaluate.Metric):
    """`compute(predictions, references)` -> `{"chrf": percent, "scores": [...], "signature"}`."""

    def _info(self) -> Any:
        return text_metric_info(
            "Corpus chrF2 in percent: character n-grams shared with the best accepted answer.",
            "Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015",
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]] | list[str]
    ) -> dict[str, Any]:
        counts = chrf_statistics(predictions, accepted_answers(references))  # (N, STATISTICS)
        return {
            "chrf": float(chrf_of(counts.sum(axis=0, keepdims=True))[0]),
            "scores": (chrf_of(counts) / 100.0).tolist(),
            "signature": chrf_signature(),
        }
