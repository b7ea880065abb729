"""Training curves as MLflow has them: a line of history.jsonl, and the names of its metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import ReleaseError
from rag.release.answers import RELEASED


def metric_name(*parts: str) -> str:
    """`tuned/recall_at_5`: MLflow allows no @ in names."""
    return "/".join(parts).replace("@", "_at_")


def system_metric(system: str, name: str) -> str:
    """`tuned/f1`, `versus/closed_book/f1`: MLflow's charts come by group, in alphabetical order.

    The curves (`dev`, `retriever`, `train`) are then above the scores, and what the tuned system is
    compared with is below them all.
    """
    return metric_name(*([system] if system == RELEASED else ["versus", system]), name)


def history_row(line: bytes, path: Path) -> dict[str, Any]:
    """One line of `path`; ReleaseError where it is no JSON object with a step."""
    try:
        row = json.loads(line)
        int(row["step"])
    except (ValueError, KeyError, TypeError):
        shown = line[:80].decode(errors="replace")
        raise ReleaseError(f"{path}: expected a JSON object with a step, got {shown!r}") from None
    return dict(row)


def history_metrics(row: Mapping[str, Any], group: str) -> list[tuple[str, float]]:
    """Names and values of a row: `dev/f1`, `train/loss`, each below `group`."""
    return [
        (
            group + metric_name("dev", key[4:])
            if key.startswith("dev_")
            else f"{group}train/{key}",
            float(value),
        )
        for key, value in row.items()
        if key != "step"
    ]
