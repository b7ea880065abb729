"""What a search reads from its trials, and what it says in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from flows import tune_study
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params
from rag.reading.reader import read_manifest
from rag.search_space import METRIC, Dimension, current_values


def found(study: optuna.Study, params: Params, dimensions: tuple[Dimension, ...]) -> dict[str, Any]:
    """What the study knows: the best trial, the current values' own, importance, every trial.

    RagError where no trial has completed.
    """
    ended = sorted(tune_study.finished(study), key=lambda item: tune_study.position(study, item))
    best = tune_study.best(study)
    if best is None:
        failed = [tune_study.error_of(item) for item in ended if tune_study.error_of(item)]
        raise RagError(failed[-1] if failed else "no trial has completed; give it more time")

    def row(item: FrozenTrial) -> dict[str, Any]:
        return {
            "trial": tune_study.position(study, item),
            "state": item.state.name.lower(),
            "value": item.value,
            "params": trial_values(dimensions, item.params),
            **({"error": tune_study.error_of(item)} if tune_study.error_of(item) else {}),
        }

    rows = [row(item) for item in ended]
    now = current_values(params, dimensions)
    current = [item for item in rows if now and item["params"] == trial_values(dimensions, now)]
    return {
        "study": study.study_name,
        "metric": METRIC[params.tune.objective],
        "trials": {
            state: sum(item["state"] == state for item in rows)
            for state in ("complete", "pruned", "fail")
        },
        "best": row(best),
        "current": current[0] if current else None,
        "importance": tune_study.importance(study),
        "rows": rows,
    }


def trial_values(dimensions: tuple[Dimension, ...], sampled: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial trains with, from what the sampler drew."""
    return {item.key: item.value(sampled[item.key]) for item in dimensions if item.key in sampled}


def history_of(artifacts: Artifacts, objective: str) -> Path:
    """The curve that the last stage of a trial writes."""
    return artifacts.history if objective == "reader" else artifacts.retriever_history


def evaluations(history: Path, metric: str) -> list[tuple[int, float]]:
    """The dev evaluations that a curve holds so far, counted: the untrained state is number 0.

    Counted rather than by their step, so that trials of other batch sizes can be compared.
    """
    try:
        lines = history.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    rows = [row for row in map(json.loads, lines) if metric in row]
    first = 0 if rows and rows[0]["step"] == 0 else 1
    return [(number, float(row[metric])) for number, row in enumerate(rows, start=first)]


def dev_value(artifacts: Artifacts, objective: str) -> float:
    """The dev metric of what the last stage kept, in percent."""
    if objective == "reader":
        return float(read_manifest(artifacts.reader)["dev"][METRIC[objective]])
    report = artifacts.query_encoder / "training.json"
    after = json.loads(report.read_text(encoding="utf-8"))["dev"]["after"]
    return float(after[METRIC[objective].removeprefix("dev_")])
