"""The report's numbers as tables of MLflow: `{"columns": [...], "data": [[...], ...]}` each.

MLflow shows such a JSON file as a table that can be sorted and compared between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag.evaluation.slices import slices_table

Table = dict[str, Any]
Metrics = Mapping[str, Any]


def review_tables(metrics: Metrics) -> dict[str, Table]:
    """Tables by file name; a table that these metrics have nothing for is left out.

    `scores.json` has every metric with its interval, `slices.json` the slices, `errors.json` where
    the answers of each system went wrong.
    """
    tables = {
        "scores.json": scores_table(metrics),
        "slices.json": slices_table(metrics.get("slices") or {}),
        "errors.json": errors_table(metrics),
    }
    return {name: table for name, table in tables.items() if table["data"]}


def scores_table(metrics: Metrics) -> Table:
    """A row for each system and metric; `change` is the judged system's, on that one, paired."""
    columns = ["system", "metric", "value", "low", "high", "change", "change_low", "change_high"]
    changes = metrics.get("differences") or {}
    data = [
        [system, metric, *_ends(interval), *_ends(changes.get(system, {}).get(metric))]
        for system, found in metrics["systems"].items()
        for metric, interval in found.items()
    ]
    return {"columns": columns, "data": data}


def errors_table(metrics: Metrics) -> Table:
    """A row for each system and label: how many answers, and which share of its answers."""
    data = []
    for system, counts in (metrics.get("errors") or {}).items():
        total = sum(counts.values()) or 1
        data += [
            [system, label, count, round(100.0 * count / total, 2)]
            for label, count in counts.items()
        ]
    return {"columns": ["system", "label", "answers", "percent"], "data": data}


def _ends(interval: Mapping[str, float] | None) -> list[float | None]:
    return [interval.get(end) if interval else None for end in ("value", "low", "high")]
