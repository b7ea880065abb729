"""Accuracy, precision, recall and F1 of labels as an `evaluate` module."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import evaluate

from rag.evaluation.labels import label_scores
from rag.evaluation.metrics.module_info import metric_info


class LabelScores(evaluate.Metric):
    """`compute(predictions, references, labels=None, zero_division=0.0)`, all in percent:

    `{"accuracy", "macro_f1", ..., "labels", "confusion", "outside": [[row, prediction], ...]}`.
    """

    def _info(self) -> Any:
        from datasets import Features, Value

        text = Value("string")
        return metric_info(
            "Accuracy, and macro, micro and weighted precision, recall and F1 of labels, in "
            "percent. A prediction that is no known label is wrong and is listed in `outside`.",
            "Sokolova and Lapalme, A systematic analysis of performance measures for "
            "classification tasks, 2009",
            """
Args:
    predictions: one label for each example, compared after normalisation ("Yes." is "yes").
    references: the right label of each example.
    labels: the known labels; by default those among the references.
    zero_division: 0.0 or 1.0, what a ratio of nothing to nothing counts.
""",
            Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        labels: list[str] | None = None,
        zero_division: float = 0.0,
    ) -> dict[str, Any]:
        found = label_scores(predictions, references, labels=labels, zero_division=zero_division)
        averages = {
            f"{kind}_{name}": 100.0 * value
            for kind in ("macro", "micro", "weighted")
            for name, value in asdict(getattr(found, kind)).items()
        }
        return {
            "accuracy": 100.0 * found.accuracy,
            **averages,
            "scores": found.correct.tolist(),
            "labels": list(found.labels),
            "confusion": found.confusion.tolist(),
            "precision": (100.0 * found.precision).tolist(),
            "recall": (100.0 * found.recall).tolist(),
            "f1": (100.0 * found.f1).tolist(),
            "support": found.support.tolist(),
            "outside": [list(pair) for pair in found.outside],
        }
