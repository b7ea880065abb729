"""The report's numbers as tables of MLflow: `{"columns": [...], "data": [[...], ...]}` each.

MLflow shows such a JSON file as a table that can be sorted and compared between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag.evaluation.slices import slices_table
from rag.release.card import check_result

Table = dict[str, Any]
Metrics = Mapping[str, Any]


def review_tables(metrics: Metrics, decision: Mapping[str, Any] | None = None) -> dict[str, Table]:
    """Tables by file name; a table that there is nothing for is left out.

    `checks.json` has the checks of the gate, `scores.json` every metric with its interval,
    `slices.json` the slices, `errors.json` where the answers of each system went wrong.
    """
    tables = {
        "checks.json": checks_table(decision or {"checks": []}),
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


def checks_table(decision: Mapping[str, Any]) -> Table:
    """A row for each check of the gate, in the order in which it judged."""
    columns = ["result", "check", "metric", "value", "low", "high", "threshold", "says"]
    data = [
        [check_result(check), check["name"], *(check[name] for name in (*columns[2:-1], "detail"))]
        for check in decision["checks"]
    ]
    return {"columns": columns, "data": data}


def _ends(interval: Mapping[str, float] | None) -> list[float | None]:
    return [interval.get(end) if interval else None for end in ("value", "low", "high")]
