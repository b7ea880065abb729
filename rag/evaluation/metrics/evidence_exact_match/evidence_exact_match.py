"""Evidence-gated exact match as an `evaluate` module: right, and read from the right passage."""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np

from rag.evaluation.evidence import evidence_exact_match
from rag.evaluation.metrics.module_info import metric_info


class EvidenceExactMatch(evaluate.Metric):
    """`compute(predictions, references)` -> `{"evidence_em": percent, "scores": [0 or 1, ...]}`."""

    def _info(self) -> Any:
        from datasets import Features, Value
        from datasets.features import List

        text = Value("string")
        passage = {"text": text, "posterior": Value("float64")}
        return metric_info(
            "Share of answers that equal an accepted answer and whose evidence, the passage of the "
            "highest posterior, holds an accepted answer; in percent.",
            "Petroni et al., KILT: a Benchmark for Knowledge Intensive Language Tasks, 2021",
            """
Args:
    predictions: for each example the answer `text` and the `passages` it was read from, best rank
        first, each with its `text` and its `posterior`, None where passages are not weighed.
    references: the accepted answers of each example; an empty list stands for "no answer".
""",
            Features(
                {
                    "predictions": {"text": text, "passages": List(passage)},
                    "references": List(text),
                }
            ),
        )

    def _compute(
        self, predictions: list[dict[str, Any]], references: list[list[str]]
    ) -> dict[str, Any]:
        scores = [
            evidence_exact_match(
                answer["text"],
                accepted,
                [passage["text"] for passage in answer["passages"]],
                [passage["posterior"] for passage in answer["passages"]],
            )
            for answer, accepted in zip(predictions, references, strict=True)
        ]
        return {"evidence_em": 100.0 * float(np.mean(scores)), "scores": scores}
