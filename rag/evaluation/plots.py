"""Plot files for DVC and for anyone with a spreadsheet: three CSV tables, the same bytes each time.

training.csv   step, loss, learning_rate                  one row a training step
dev.csv        step, dev_f1, dev_exact_match              one row a dev evaluation
systems.csv    system, metric, value, low, high           before and after, in percent
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.errors import MetricError

History = Sequence[Mapping[str, Any]]

_TRAINING = ("step", "loss", "learning_rate")
_DEV = ("step", "dev_f1", "dev_exact_match")
_SYSTEMS = ("system", "metric", "value", "low", "high")


def write_plots(folder: Path, metrics: Mapping[str, Any], history: History) -> list[Path]:
    """Writes the tables into `folder` and returns their paths.

    `metrics` is the content of metrics.json and `history` that of history.jsonl.
    """
    folder.mkdir(parents=True, exist_ok=True)
    systems = [
        {"system": system, "metric": metric, **interval}
        for system, found in metrics["systems"].items()
        for metric, interval in found.items()
    ]
    return [
        _write(folder / "training.csv", _TRAINING, curve(history, "loss")),
        _write(folder / "dev.csv", _DEV, curve(history, "dev_f1")),
        _write(folder / "systems.csv", _SYSTEMS, systems),
    ]


def curve(history: History, name: str) -> list[Mapping[str, Any]]:
    """The records of the history that have a value of this name, checked to be finite."""
    records = [record for record in history if name in record]
    for record in records:
        if not math.isfinite(record[name]):
            raise MetricError(f"history: {name} is {record[name]} at step {record['step']}")
    return records


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, columns, restval="", extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    return path
