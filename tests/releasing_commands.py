"""Rollbacks and prunes over a releasing project, each run in a process of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow

from flows import answers, lock, release_commands
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params
from rag.release import ledger, registry, tidying
from rag.release.inventory import read_inventory
from tests.releasing_programs import loose
from tests.releasing_project import QUESTION, opened


def roll_back_and_forth(root: Path) -> dict[str, Any]:
    """Answers of both releases before, and after a rollback and the rollback of it."""
    artifacts, params = opened(root)
    second = answers.ask(artifacts, params, QUESTION)
    mlflow.MlflowClient().set_registered_model_alias("ragloop", "champion", "1")
    first = answers.ask(artifacts, params, QUESTION)
    mlflow.MlflowClient().set_registered_model_alias("ragloop", "champion", "2")
    started = time.perf_counter()
    release_commands.rollback(artifacts, params, None, reason="answers were too short")
    seconds = time.perf_counter() - started
    back = answers.ask(artifacts, params, QUESTION)
    release_commands.rollback(artifacts, params, None, reason="")
    return {
        "first": first,
        "second": second,
        "seconds": seconds,
        "back": back,
        "forth": answers.ask(artifacts, params, QUESTION),
        "rows": ledger.read(artifacts.ledger),
    }


def roll_back_damaged(root: Path, cases: list[tuple[str, str]]) -> list[str]:
    """What a rollback to a version says where something of version 1 is gone for the time."""
    artifacts, params = opened(root)
    said = []
    for damage, version in cases:
        with _damaged(artifacts, params, damage):
            try:
                release_commands.rollback(artifacts, params, version, reason="")
            except RagError as error:
                said.append(str(error))
        champion = registry.champion(params)
        assert champion is not None
        assert champion.version == "2"
        assert len(ledger.read(artifacts.ledger)) == 3
    return said


def roll_back_rebuilding(root: Path) -> dict[str, Any]:
    """The answer after a rollback to a release whose index was gone."""
    artifacts, params = opened(root)
    shutil.rmtree(artifacts.index_folder / str(registry.get_release(params, "1").index))
    release_commands.rollback(artifacts, params, None, reason="", rebuild=True)
    return answers.ask(artifacts, params, QUESTION)


def prune_and_collect(root: Path) -> dict[str, Any]:
    """A dry run, the real one, then `mlflow gc`, and what answers before and after."""
    artifacts, params = opened(root)
    params = params.model_copy(
        update={"release": params.release.model_copy(update={"keep": 1, "keep_challengers": 0})}
    )
    before = answers.ask(artifacts, params, QUESTION)
    files = _files(artifacts)
    listed = release_commands.prune(artifacts, params, dry_run=True).to_json()
    unchanged = _files(artifacts) == files
    done = release_commands.prune(artifacts, params, dry_run=False).to_json()
    uri = mlflow.get_tracking_uri()
    collected = subprocess.run(
        [*(sys.executable, "-m", "mlflow", "gc"), *("--backend-store-uri", uri),
         *("--tracking-uri", uri)],
        check=True,
        capture_output=True,
        text=True,
    )  # fmt: skip
    served = mlflow.pyfunc.load_model("models:/ragloop@champion").predict([QUESTION])
    inventory = read_inventory(artifacts, params)
    return {
        "before": before,
        "unchanged": unchanged,
        "listed": listed["removed"],
        "removed": done["removed"],
        "freed": done["bytes"],
        "collected": len(re.findall("permanently deleted", collected.stdout)),
        "left": [item.version for item in inventory.versions],
        "loose": loose(artifacts, inventory),
        "served": served[0],
        "after": answers.ask(artifacts, params, QUESTION),
        "again": tidying.plan_prune(artifacts, params),
    }


def _files(artifacts: Artifacts) -> list[Path]:
    """All but the lock, which whoever looks makes too."""
    found = (path for path in artifacts.state.rglob("*") if path.is_file())
    return sorted(path for path in found if path != artifacts.lock)


@contextmanager
def _damaged(artifacts: Artifacts, params: Params, damage: str) -> Iterator[None]:
    """Puts back what it took; a version that MLflow has deleted does not come back."""
    if damage == "lock":
        other = _hold(artifacts)
        yield
        other.kill()
        other.wait()
    elif damage == "version":
        mlflow.MlflowClient().delete_model_version(params.release.name, "1")
        yield
    elif damage:
        bundle = registry.local_bundle(artifacts, params, "1")
        index = artifacts.index_folder / str(registry.get_release(params, "1").index)
        fusion = bundle / "data" / "retrieve" / "fusion.json"
        taken = {"index": index, "files": fusion, "bundle": bundle}[damage]
        aside = taken.rename(artifacts.root / "aside")
        yield
        aside.rename(taken)
    else:
        yield


def _hold(artifacts: Artifacts) -> subprocess.Popen[str]:
    """Another process that holds the project's lock."""
    code = (
        "import sys, time; from pathlib import Path; from flows import lock\n"
        "with lock.hold(Path(sys.argv[1]), 'a test'):\n    print('held', flush=True)\n"
        "    time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(artifacts.lock)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert lock.holder(artifacts.lock) is not None
    return other


_ROOT = Path(__file__).resolve().parent.parent
