"""Corpus BLEU as an `evaluate` module: sacrebleu with the tokenizer chosen by script."""

from __future__ import annotations

from typing import Any

import evaluate

from rag.evaluation.bleu import bleu_of, bleu_signature, bleu_statistics
from rag.evaluation.metrics.module_info import accepted_answers, text_metric_info


class Bleu(evaluate.Metric):
    """`compute(predictions, references)` -> `{"bleu": percent, "scores": [...], "signature"}`."""

    def _info(self) -> Any:
        return text_metric_info(
            "Corpus BLEU in percent; examples may have different numbers of references.",
            "Post, A Call for Clarity in Reporting BLEU Scores, 2018",
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]] | list[str]
    ) -> dict[str, Any]:
        accepted = accepted_answers(references)
        counts = bleu_statistics(predictions, accepted)  # (N, STATISTICS)
        return {
            "bleu": float(bleu_of(counts.sum(axis=0, keepdims=True))[0]),
            "scores": (bleu_of(counts) / 100.0).tolist(),
            "signature": bleu_signature(accepted),
        }
