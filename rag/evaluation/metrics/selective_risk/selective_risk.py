"""Risk, coverage and AURC of selective answering as an `evaluate` module."""

from __future__ import annotations

from typing import Any

import evaluate

from rag.evaluation.metrics.module_info import metric_info
from rag.evaluation.selective import (
    aurc,
    coverage_at_risk,
    excess_aurc,
    risk_coverage,
)


class SelectiveRisk(evaluate.Metric):
    """`compute(predictions, references, risks=(0.05, 0.1, 0.2))`, in percent:

    `{"aurc", "excess_aurc", "coverage_at_risk": [...], "curve": [[coverage, risk], ...],
    "scores"}`.
    """

    def _info(self) -> Any:
        from datasets import Features, Value

        number = Value("float64")
        return metric_info(
            "The risk-coverage curve of answers given in order of confidence, the area under it "
            "(AURC), its excess over the best order, and the coverage at given risks; in percent. "
            "Answers of equal confidence are given together.",
            "Geifman, Uziel and El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural "
            "Classifiers, 2019",
            """
Args:
    predictions: the confidence of each answer, on any scale, higher is more sure.
    references: the score of each answer, 0 to 1 (exact match or F1); its loss is 1 less that.
    risks: the risks, 0 to 1, at which coverage is given.
""",
            Features({"predictions": number, "references": number}),
        )

    def _compute(
        self,
        predictions: list[float],
        references: list[float],
        risks: tuple[float, ...] = (0.05, 0.1, 0.2),
    ) -> dict[str, Any]:
        losses = [1.0 - score for score in references]
        curve = risk_coverage(predictions, losses)
        points = zip((100.0 * curve.coverage).tolist(), (100.0 * curve.risk).tolist(), strict=True)
        return {
            "aurc": 100.0 * aurc(predictions, losses),
            "excess_aurc": 100.0 * excess_aurc(predictions, losses),
            "coverage_at_risk": [
                100.0 * coverage_at_risk(predictions, losses, risk) for risk in risks
            ],
            "curve": [list(point) for point in points],
            "scores": curve.per_example.tolist(),
        }
