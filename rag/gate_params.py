"""The gate's parameters: what a challenger must show, and who may make it champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rag.retrieval_params import Positive, Section

Confidence = Annotated[float, Field(gt=0.5, lt=1.0)]
#: Points of percent.
Points = Annotated[float, Field(ge=0.0, le=100.0)]
#: How many times as much the challenger may take.
Ratio = Annotated[float, Field(ge=1.0)]
MetricName = Literal["exact_match", "f1", "bleu", "rougeL", "recall@1", "recall@5", "mrr"]
GateMode = Literal["auto", "manual", "dry_run"]


class SliceParams(Section):
    """Kinds of questions on each of which the challenger may not lose more than a margin."""

    by: Annotated[tuple[str, ...], Field(strict=False)] = ("language",)
    guards: Mapping[MetricName, Points] = {"f1": 10.0}
    min_questions: Positive = 30
    small: Literal["report", "block"] = "report"


class CostParams(Section):
    """How much slower and larger than the champion a challenger may be; null: any."""

    questions: Annotated[int, Field(ge=2)] = 16
    rounds: Positive = 2
    p50_ratio: Ratio | None = 1.5
    p95_ratio: Ratio | None = 2.0
    memory_ratio: Ratio | None = 1.5


class BudgetParams(Section):
    """Decisions that one version of the test set may give."""

    warn: Positive = 30
    refuse: Positive = 100

    @model_validator(mode="after")
    def _warns_first(self) -> BudgetParams:
        if self.warn > self.refuse:
            raise ValueError(f"warn ({self.warn}) must be <= refuse ({self.refuse})")
        return self


class HumanParams(Section):
    """How often people must prefer the challenger, in percent with ties as halves, and on how much.

    `min_judgements` counts questions: a second opinion on the same one is not another.
    """

    min_win_rate: Annotated[float, Field(gt=0.0, le=100.0)] = 50.0
    min_judgements: Positive = 30


class GateParams(Section):
    mode: GateMode = "auto"
    metric: MetricName = "f1"
    min_effect: Points = 0.0
    baseline_effect: Points = 5.0
    refresh_margin: Points = 2.0
    floors: Mapping[MetricName, Points] = {}
    guards: Mapping[MetricName, Points] = {}
    slices: SliceParams = SliceParams()
    max_abstention_gain: Points | None = 20.0
    max_length_ratio: Ratio | None = 3.0
    min_distinct_top1: Points = 5.0
    cost: CostParams | None = CostParams()
    human: HumanParams | None = None
    attribution: bool = True
    decisions_per_test_set: BudgetParams = BudgetParams()
    resamples: Annotated[int, Field(ge=1000)] = 10000
    confidence: Confidence = 0.95

    @model_validator(mode="after")
    def _has_a_floor(self) -> GateParams:
        if not self.floors:
            raise ValueError("floors must name at least one metric: a gate without one is open")
        return self
