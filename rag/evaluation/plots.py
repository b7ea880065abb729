"""Plot files for DVC and for anyone with a spreadsheet: CSV tables, the same bytes each time.

training.csv        step, loss, learning_rate                  one row a training step
dev.csv             step, dev_f1, dev_exact_match              one row a dev evaluation
systems.csv         system, metric, value, low, high           before and after, in percent
slices.csv          dimension, slice, questions, small, system, metric, value, low, high
errors.csv          system, error, questions, percent          why answers are wrong
risk_coverage.csv   system, coverage, risk                     in percent, most confident first
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.errors import MetricError
from rag.evaluation.metric_groups import DECIMALS
from rag.evaluation.slices import slices_table

History = Sequence[Mapping[str, Any]]

_TRAINING = ("step", "loss", "learning_rate")
_DEV = ("step", "dev_f1", "dev_exact_match")
_SYSTEMS = ("system", "metric", "value", "low", "high")
_SLICES = ("dimension", "slice", "questions", "small", *_SYSTEMS)
_ERRORS = ("system", "error", "questions", "percent")
_RISK = ("system", "coverage", "risk")


def write_plots(folder: Path, metrics: Mapping[str, Any], history: History) -> list[Path]:
    """Writes the tables into `folder` and returns their paths.

    `metrics` is the content of metrics.json and `history` that of history.jsonl; without slices,
    errors or confidence in the one, their tables have no rows.
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
        _write(folder / "slices.csv", _SLICES, _slices(metrics.get("slices", {}))),
        _write(folder / "errors.csv", _ERRORS, _errors(metrics.get("errors", {}))),
        _write(folder / "risk_coverage.csv", _RISK, _risk(metrics.get("abstention", {}))),
    ]


def curve(history: History, name: str) -> list[Mapping[str, Any]]:
    """The records of the history that have a value of this name, checked to be finite."""
    records = [record for record in history if name in record]
    for record in records:
        if not math.isfinite(record[name]):
            raise MetricError(f"history: {name} is {record[name]} at step {record['step']}")
    return records


def _slices(slices: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    table = slices_table(slices)
    for row in table["data"]:
        yield dict(zip(_SLICES, row, strict=True))


def _errors(errors: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for system, counts in errors.items():
        total = sum(counts.values())
        for label, count in counts.items():
            percent = round(100.0 * count / total, DECIMALS)
            yield {"system": system, "error": label, "questions": count, "percent": percent}


def _risk(abstention: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for system, found in abstention.items():
        for coverage, risk in found["curve"]:
            yield {"system": system, "coverage": coverage, "risk": risk}


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, columns, restval="", extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    return path
