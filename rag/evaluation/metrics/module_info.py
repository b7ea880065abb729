"""What the metric modules have in common: predictions and references are text, in any script."""

from __future__ import annotations

from typing import Any

_INPUTS = """
Args:
    predictions: one answer for each example.
    references: the accepted answers of each example, a list of texts or one text; an empty text
        stands for "no answer".
"""


def text_metric_info(description: str, citation: str) -> Any:
    """`evaluate.MetricInfo` of a metric over texts with one or several references."""
    from datasets import Features, Value
    from datasets.features import List
    from evaluate import MetricInfo

    text = Value("string")
    return MetricInfo(
        description=description,
        citation=citation,
        inputs_description=_INPUTS,
        features=[
            Features({"predictions": text, "references": List(text)}),
            Features({"predictions": text, "references": text}),
        ],
    )


def accepted_answers(references: list[list[str]] | list[str]) -> list[list[str]]:
    """References as lists, a lone text becoming a list of one."""
    return [[item] if isinstance(item, str) else list(item) for item in references]
