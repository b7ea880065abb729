"""Programs over a releasing project, each run in a process of its own: release, die, ask, look.

Imported once by the process that they are forked from, with all that they need.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import peft  # noqa: F401
import qdrant_edge  # noqa: F401
import sentence_transformers  # noqa: F401
import transformers.models.auto.modeling_auto
import transformers.models.bert.modeling_bert
import transformers.models.llama.modeling_llama  # noqa: F401
from mlflow import MlflowClient
from mlflow.utils import requirements_utils

from flows import answers, promote
from rag.artifacts import Artifacts
from rag.params import Params
from rag.release import ledger, registry, switch, tidying
from rag.release.gate import Decision, Outcome
from rag.release.intent import read_intent
from rag.release.inventory import Inventory, read_inventory
from rag.release.served import check_release
from rag.release.steps import Step
from rag.stages import build_index
from rag.tracking import RunTracker
from tests.releasing_project import QUESTION, opened, write_edition

# Which distribution each module is of: MLflow looks it up once in every process.
requirements_utils.warn_dependency_requirement_mismatches(["mlflow"])
PROMOTED = Decision(Outcome.PROMOTE, ("f1 is better",), (), "champion", 20, {"seed": 13})
REJECTED = Decision(Outcome.REJECT, ("f1 is worse",), (), "champion", 20, {"seed": 13})


def release(root: Path, colour: str, point: str = "", promoted: bool = True) -> dict[str, Any]:
    """One retraining without its stages: publish, log, register, switch, prune; dies at `point`."""
    artifacts, params = opened(root)
    _die_at(*point.partition(":")[::2])
    tidying.reconcile(artifacts, params)
    write_edition(artifacts, params, colour)
    tags = {"run_key": colour, "data_hash": colour, "fingerprint": build_index(params, artifacts)}
    _reached("publish", point)
    tracker = RunTracker.open(artifacts, params, key=colour, name=colour, tags=tags)
    tracker.log_checkpoint(artifacts.reader, name="reader", step=1, metrics={})
    _reached("log", point)
    decision = PROMOTED if promoted else REJECTED
    row = promote.conclude(
        artifacts,
        params,
        decision,
        key=colour,
        run_id=tracker.run_id,
        tags=tags,
        champion=registry.champion(params),
    )
    tracker.finish()
    tidying.prune(artifacts, params)
    return row


def ask(root: Path) -> dict[str, Any]:
    """What `ragloop ask` prints as JSON."""
    return answers.ask(*opened(root), QUESTION)


def look(root: Path) -> dict[str, Any]:
    """An answer, what the next start puts right, an answer after it, and the facts."""
    artifacts, params = opened(root)
    before = answers.ask(artifacts, params, QUESTION)
    said = tidying.reconcile(artifacts, params)
    after = answers.ask(artifacts, params, QUESTION)
    found = {"before": before, "said": said, "after": after}
    return {**found, "again": tidying.reconcile(artifacts, params), **facts(artifacts, params)}


def facts(artifacts: Artifacts, params: Params) -> dict[str, Any]:
    """The champion, where its index is checked, the ledger, and everything there is."""
    champion = registry.champion(params)
    assert champion is not None
    check_release(artifacts, params, champion)
    inventory = read_inventory(artifacts, params)
    return {
        "champion": champion.version,
        "colour": champion.tags["run_key"],
        "rows": ledger.read(artifacts.ledger),
        "loose": loose(artifacts, inventory),
        "inventory": inventory,
    }


def loose(artifacts: Artifacts, inventory: Inventory) -> list[str]:
    """Whatever is half made, or belongs to nothing."""
    versions = {item.model_id for item in inventory.versions}
    runs = {run.run_id for run in inventory.runs}
    reached = inventory.working.union(*(item.indexes for item in inventory.versions))
    found = [f"pending version {item.version}" for item in inventory.versions if item.pending]
    found += [f"running {run.run_id}" for run in inventory.runs if run.running]
    found += [f"half {model.model_id}" for model in inventory.models if not model.whole]
    found += [
        f"model without version {model.model_id}"
        for model in inventory.models
        if model.is_release and model.model_id not in versions
    ]
    found += [
        f"version without model {item.version}"
        for item in inventory.versions
        if item.model_id not in {model.model_id for model in inventory.models}
    ]
    found += [
        f"version without run {item.version}"
        for item in inventory.versions
        if item.run_id not in runs
    ]
    found += [f"index {name}" for name in inventory.indexes if name not in reached]
    found += [f"scratch {name}" for name in inventory.scratch]
    found += ["intent"] if read_intent(artifacts) else []
    return found


def _die_at(point: str, nth: str) -> None:
    """Kills this process right after a step of that name, or the nth call of MLflow's client."""
    if point and hasattr(MlflowClient, point):
        setattr(MlflowClient, point, _deadly(getattr(MlflowClient, point), int(nth or 1)))

    def walk(steps: Iterable[Step]) -> None:
        for step in steps:
            step.act()
            _reached(step.name.partition(" ")[0], point)

    for module in (switch, tidying):
        vars(module)["walk"] = walk


def _reached(name: str, point: str) -> None:
    if name == point:
        os.kill(os.getpid(), signal.SIGKILL)


def _deadly(call: Callable[..., Any], nth: int) -> Callable[..., Any]:
    calls = itertools.count(1)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = call(*arguments, **named)
        if next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped
