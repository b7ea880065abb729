"""What the metric modules have in common: how they describe themselves, and texts as inputs."""

from __future__ import annotations

from typing import Any

_INPUTS = """
Args:
    predictions: one answer for each example.
    references: the accepted answers of each example, a list of texts or one text; an empty text
        stands for "no answer".
"""


def metric_info(description: str, citation: str, inputs: str, features: Any) -> Any:
    """`evaluate.MetricInfo`: what is measured, its source, its inputs in words and in types."""
    from evaluate import MetricInfo

    return MetricInfo(
        description=description, citation=citation, inputs_description=inputs, features=features
    )


def text_metric_info(description: str, citation: str) -> Any:
    """`evaluate.MetricInfo` of a metric over texts with one or several references."""
    from datasets import Features, Value
    from datasets.features import List

    text = Value("string")
    return metric_info(
        description,
        citation,
        _INPUTS,
        [
            Features({"predictions": text, "references": List(text)}),
            Features({"predictions": text, "references": text}),
        ],
    )


def accepted_answers(references: list[list[str]] | list[str]) -> list[list[str]]:
    """References as lists, a lone text becoming a list of one."""
    return [[item] if isinstance(item, str) else list(item) for item in references]
