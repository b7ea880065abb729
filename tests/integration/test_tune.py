"""`ragloop tune` on the toy corpus: killed and started again it ends as if nothing had happened.

The project's test questions are poisoned: their words are a mark that must turn up nowhere.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows import lock
from rag.artifacts import Artifacts
from rag.params import load_params
from tests.toy import fill_raw, make_toy_project

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TRIALS = 8
POISON = "Zyxwvut"
#: Few values, so that trials repeat and eight of them train four times.
RATES = [0.002, 0.005, 0.01, 0.02]
OVERRIDES = (
    f"tune.space={{reader.training.learning_rate: {{choices: {RATES}}}}}",
    f"tune.trials={TRIALS}",
    "tune.startup_trials=3",
    "tune.pruner_trials=2",
    "reader.training.epochs=2",
)


#: The flow, as its deployment runs it, with a Prefect server for the time.
FLOW = """
import json
from flows import server, settings, stores
from rag.artifacts import Artifacts
from rag.params import load_params

artifacts = Artifacts.here()
params = load_params(artifacts.params)
settings.configure(artifacts, params)
stores.initialise(artifacts, params)
with server.prefect_api(artifacts):
    from flows.operations import tune

    state = tune(return_state=True)
print(json.dumps([state.name, state.message, state.result()]))
"""


@dataclass(frozen=True)
class Search:
    """A project in which a search came to its end, and what the command printed."""

    artifacts: Artifacts
    result: Mapping[str, Any]

    def table(self) -> list[tuple[int, str, float | None, Mapping[str, Any]]]:
        rows = self.result["rows"]
        return [(row["trial"], row["state"], row["value"], row["params"]) for row in rows]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows.cli", "tune", *arguments]


def environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
    return {name: os.environ[name] for name in kept if name in os.environ}


def finished(root: Path, *arguments: str) -> Search:
    printed = run_to_end(root, command("--json", *arguments))
    return Search(Artifacts(root), json.loads(printed))


def run_to_end(root: Path, arguments: Sequence[str]) -> str:
    """What a program that ended well has printed."""
    done = subprocess.run(
        arguments,
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def trials_told(root: Path) -> int:
    """How many trials the store has a result of."""
    path = root / ".ragloop" / "optuna.db"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as database:
            query = "SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
            return int(database.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def kill_somewhere(root: Path) -> None:
    """Starts a search and kills its process group at a random moment, trials done and to do."""
    chance = random.Random()
    after, seconds = chance.randrange(1, 4), chance.uniform(0.0, 6.0)
    print(f"killed {seconds:.2f} s after trial {after} was told")
    with (root / "killed.log").open("w") as log:
        process = subprocess.Popen(
            command(),
            cwd=root,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 600
        while trials_told(root) < after and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(seconds)
        assert process.poll() is None, (root / "killed.log").read_text()
        with lock.hold(Artifacts(root).lock, "a retraining"):
            pass  # it could go on meanwhile
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert trials_told(root) < TRIALS


def poison_test_questions(project: Path) -> int:
    """Puts the mark into every question that `prepare` will choose for the test set."""
    from rag.corpus import prepare_corpus

    params = load_params(project / "params.yaml")
    prepared = prepare_corpus(project / "data" / "raw", params.prepare, params.seed)
    chosen = {item.question_id for item in prepared.questions if item.split == "test"}
    path = project / "data" / "raw" / "questions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    poisoned = 0
    for row in rows:
        if row["id"] in chosen:
            row["question"] = f"{POISON} {row['id']}?"
            poisoned += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return poisoned


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search over poisoned data that was killed, gone on with, and applied."""
    root = make_toy_project(tmp_path_factory.mktemp("tune") / "killed", overrides=OVERRIDES)
    fill_raw(root)
    assert poison_test_questions(root) > 10
    kill_somewhere(root)
    return finished(root, "--apply")


@pytest.fixture(scope="module")
def undisturbed(killed: Search, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """The same search from its first trial to its last; only what trials share is there."""
    root = tmp_path_factory.mktemp("tune") / "undisturbed"
    shutil.copytree(killed.artifacts.root, root, symlinks=True)
    for path in root.glob(".ragloop/*.db*"):
        path.unlink()
    for folder in root.glob(".ragloop/tune/*/stages/train_reader-*"):
        shutil.rmtree(folder)
    subprocess.run(["git", "checkout", "--quiet", "params.yaml"], cwd=root, check=True)
    return finished(root)


def test_a_killed_search_ends_as_one_that_was_not(killed: Search, undisturbed: Search) -> None:
    assert killed.table() == undisturbed.table()
    assert [row[0] for row in killed.table()] == list(range(TRIALS))
    assert killed.result["best"] == undisturbed.result["best"]
    assert killed.result["study"] == undisturbed.result["study"]
    assert len({row[3]["reader.training.learning_rate"] for row in killed.table()}) > 2


def test_the_first_trial_is_params_yaml_as_it_was(undisturbed: Search) -> None:
    first = undisturbed.table()[0]
    assert first[3] == {"reader.training.learning_rate": 0.02}
    assert undisturbed.result["current"]["trial"] == 0
    assert undisturbed.result["best"]["value"] >= (first[2] or 0.0)


def test_nothing_reads_the_test_questions(killed: Search) -> None:
    """The mark lies in the data as given and in no file that a stage of the search made."""
    study = killed.artifacts.state / "tune" / killed.result["study"]
    assert POISON in (study / "raw" / "questions.jsonl").read_text(encoding="utf-8")
    files = [path for path in (study / "stages").rglob("*") if path.is_file()]
    tables = [path for path in files if path.suffix == ".parquet"]
    assert {path.name for path in tables} >= {"questions.parquet", "contexts.parquet"}
    for path in tables:
        assert POISON not in str(pq.read_table(path).to_pydict()), path
    for path in files:
        inside = path.resolve().is_relative_to(study / "stages")
        assert not inside or POISON.encode() not in path.read_bytes(), path
    assert not list(study.rglob("evaluate*"))
    assert not (killed.artifacts.data / "evaluate").exists()
    database = (killed.artifacts.state / "mlflow.db").read_bytes()
    assert POISON.encode() not in database


def test_apply_writes_the_best_values_and_nothing_else(killed: Search) -> None:
    before = load_params(killed.artifacts.params, ["reader.training.learning_rate=0.02"])
    best = killed.result["best"]["params"]["reader.training.learning_rate"]
    after = load_params(killed.artifacts.params)
    assert after.reader.training.learning_rate == best
    changed = {key for key, value in after.flat().items() if before.flat()[key] != value}
    assert changed == ({"reader.training.learning_rate"} if best != 0.02 else set())
    assert killed.result["applied"] == (best != 0.02)
    assert bool(killed.result["diff"]) == (best != 0.02)


def test_mlflow_has_the_study_and_its_trials_nested(killed: Search) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{killed.artifacts.state / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ragloop-tune")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.info.run_name == killed.result["study"]
    assert parent.data.metrics["best/f1"] == killed.result["best"]["value"]
    by_trial = {int(run.data.tags["ragloop.trial"]): run for run in children}
    assert sorted(by_trial) == list(range(TRIALS)), "a trial that was killed has one run, not two"
    for trial, state, value, values in killed.table():
        run = by_trial[trial]
        rate = str(values["reader.training.learning_rate"])
        assert run.data.params["reader.training.learning_rate"] == rate
        assert run.info.status == "FINISHED"
        curve = client.get_metric_history(run.info.run_id, "dev/f1")
        steps = [point.step for point in curve]
        assert steps == sorted(set(steps))
        if state == "complete":
            assert value == pytest.approx(max(point.value for point in curve), abs=1e-3)
    assert client.get_experiment_by_name("ragloop") is None


def test_the_flow_gives_what_the_command_gave(undisturbed: Search) -> None:
    """It finds the study at its end, and says so in Prefect."""
    root = undisturbed.artifacts.root
    printed = run_to_end(root, [sys.executable, "-c", FLOW])
    name, message, result = json.loads(printed.splitlines()[-1])
    assert {**result, "diff": undisturbed.result["diff"], "applied": False} == undisturbed.result
    best = undisturbed.result["best"]
    assert (name, message) == (
        "Searched",
        f"trial {best['trial']} is best, dev_f1 {best['value']:.2f}: "
        f"reader.training.learning_rate {best['params']['reader.training.learning_rate']}",
    )
    database = root / ".ragloop" / "prefect" / "prefect.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        query = "SELECT state_type, state_name, labels FROM flow_run"
        ((kind, state, labels),) = connection.execute(query).fetchall()
    assert (kind, state) == ("COMPLETED", "Searched")
    assert "ragloop.pid" in json.loads(labels), "a search that dies is told from one that works"
