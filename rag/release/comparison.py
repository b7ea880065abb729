"""Prediction tables of two systems: whether they can be compared, and by how much they differ.

The numbers are those of `rag.evaluation.scoring`; what is added here is the refusal of tables that
would give a number without meaning: other questions under the same ids, or retrieval scores that
are missing where there was something to find. All raise ReleaseError or MetricError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rag.errors import ReleaseError
from rag.evaluation.metric_groups import RETRIEVAL_METRICS
from rag.evaluation.scoring import DECIMALS, compare_systems, summarize
from rag.evaluation.statistics import Interval
from rag.records import PREDICTIONS

#: What makes a question the same question, beside its id and its accepted answers.
_FROZEN = ("question", "document_id", "answerable")
_NAMED_IN_A_MESSAGE = 3


def check_predictions(label: str, table: pa.Table) -> None:
    """Refuses a table that is empty, lacks a column, or has gaps in its retrieval scores."""
    missing = [name for name in PREDICTIONS.names if name not in table.schema.names]
    if missing:
        raise ReleaseError(f"{label}: the predictions have no column {', '.join(missing)}")
    if not table.num_rows:
        raise ReleaseError(f"{label}: the predictions are empty")
    needed = ("question_id", *_FROZEN, "answers", "prediction", "exact_match", "f1", "rougeL")
    for name in needed:
        nulls = table[name].null_count
        if nulls and name != "document_id":
            raise ReleaseError(f"{label}: {name} is missing in {nulls} of {table.num_rows} rows")
    columns = ["question_id", "answerable", *RETRIEVAL_METRICS]
    rows = [row for row in table.select(columns).to_pylist() if row["answerable"]]
    for metric in RETRIEVAL_METRICS:
        gaps = [row["question_id"] for row in rows if row[metric] is None]
        if len(gaps) < len(rows):  # a system without retrieval has none at all
            _refuse(f"{label}: {metric} is missing for questions that have an answer", gaps)


def check_same_questions(label: str, table: pa.Table, other_label: str, other: pa.Table) -> None:
    """Refuses tables whose questions differ in text, document or answerability under one id."""
    asked = {row["question_id"]: row for row in table.select(["question_id", *_FROZEN]).to_pylist()}
    changed = [
        row["question_id"]
        for row in other.select(["question_id", *_FROZEN]).to_pylist()
        if row["question_id"] in asked and row != asked[row["question_id"]]
    ]
    _refuse(f"{label} and {other_label} were asked different questions under the same ids", changed)


def differences(
    challenger: pa.Table, other: pa.Table, *, resamples: int, confidence: float, seed: int
) -> dict[str, Interval]:
    """Paired differences challenger - other, in points, of every metric that both have."""
    found = compare_systems(
        challenger, other, resamples=resamples, confidence=confidence, seed=seed
    )
    return {
        name: _rounded(interval.value, interval.low, interval.high)
        for name, interval in found.items()
    }


def levels(table: pa.Table, *, resamples: int, confidence: float, seed: int) -> dict[str, Interval]:
    """Every metric of the one system in the table, in percent."""
    systems: Mapping[str, Any] = summarize(
        table, resamples=resamples, confidence=confidence, seed=seed
    )["systems"]
    if len(systems) != 1:
        raise ReleaseError(f"expected the predictions of one system, got {', '.join(systems)}")
    (metrics,) = systems.values()
    return {name: Interval(**ends) for name, ends in metrics.items()}


def _rounded(*ends: float) -> Interval:
    """To the decimals of metrics.json: the sums of equal scores may differ in their last bits."""
    value, low, high = (round(end, DECIMALS) + 0.0 for end in ends)
    return Interval(value, low, high)


def _refuse(what: str, question_ids: list[str]) -> None:
    if question_ids:
        shown = ", ".join(sorted(question_ids)[:_NAMED_IN_A_MESSAGE])
        raise ReleaseError(f"{what}: {len(question_ids)} questions, for example {shown}")
