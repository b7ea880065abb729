"""SQuAD 2.0's numbers as an `evaluate` module, with the rows that the hub's `squad_v2` takes."""

from __future__ import annotations

from typing import Any

import evaluate

from rag.evaluation.metric_groups import refuse, repeated
from rag.evaluation.metrics.module_info import metric_info
from rag.evaluation.squad_v2 import squad_v2_scores


class SquadV2(evaluate.Metric):
    """`compute(predictions, references, no_answer_threshold=1.0)` -> `{"exact": percent, "f1", ...,

    "best_f1", "best_f1_thresh", "scores": {"exact": {id: 0 or 1}, "f1": {...}}}`.
    """

    def _info(self) -> Any:
        from datasets import Features, Value
        from datasets.features import List

        text = Value("string")
        answers = {"text": List(text), "answer_start": List(Value("int32"))}
        return metric_info(
            "Exact match and F1 in percent over all questions, those with an answer and those "
            "without, and the best that a threshold on the probability of no answer could give.",
            "Rajpurkar, Jia and Liang, Know What You Don't Know: Unanswerable Questions for SQuAD, "
            "2018",
            """
Args:
    predictions: `id`, `prediction_text` and `no_answer_probability` of each question.
    references: `id` and `answers` (a list of `text` and of `answer_start`) of each question.
    no_answer_threshold: an answer whose probability of none is above it counts as declined.
""",
            Features(
                {
                    "predictions": {
                        "id": text,
                        "prediction_text": text,
                        "no_answer_probability": Value("float64"),
                    },
                    "references": {"id": text, "answers": answers},
                }
            ),
        )

    def _compute(
        self,
        predictions: list[dict[str, Any]],
        references: list[dict[str, Any]],
        no_answer_threshold: float = 1.0,
    ) -> dict[str, Any]:
        for what, rows in (("predictions", predictions), ("references", references)):
            refuse(f"squad_v2: {what} that occur twice", repeated(row["id"] for row in rows))
        numbers, scores = squad_v2_scores(
            {row["id"]: row["prediction_text"] for row in predictions},
            {row["id"]: row["answers"]["text"] for row in references},
            {row["id"]: row["no_answer_probability"] for row in predictions},
            threshold=no_answer_threshold,
        )
        ids = [row["id"] for row in references]
        by_id = {name: dict(zip(ids, each.tolist(), strict=True)) for name, each in scores.items()}
        return {**numbers, "scores": by_id}
