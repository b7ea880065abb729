"""ROUGE-1, ROUGE-2 and ROUGE-L as an `evaluate` module, over tokens of any script."""

from __future__ import annotations

from typing import Any

import evaluate

from rag.evaluation.metrics.module_info import accepted_answers, text_metric_info
from rag.evaluation.rouge import rouge_scores


class Rouge(evaluate.Metric):
    """`compute(predictions, references, stem=False)` -> `{"rouge1": percent, ..., "scores"}`."""

    def _info(self) -> Any:
        return text_metric_info(
            "Mean F-measure of unigrams, bigrams and the longest common subsequence, in percent.",
            "Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004",
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[list[str]] | list[str],
        stem: bool = False,
    ) -> dict[str, Any]:
        scores = rouge_scores(predictions, accepted_answers(references), stem=stem)
        means: dict[str, Any] = {kind: 100.0 * float(each.mean()) for kind, each in scores.items()}
        return {**means, "scores": {kind: each.tolist() for kind, each in scores.items()}}
