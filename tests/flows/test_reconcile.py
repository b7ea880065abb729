"""Who works on a run, and what becomes of runs whose process is gone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows import reconcile, resume
from flows.identity import Identity
from rag.artifacts import Artifacts
from rag.params import Params


@pytest.fixture
def ended() -> Identity:
    """A process of this host that has ended."""
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from flows.identity import Identity as I; print(I.of_this_process().as_tags())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = Identity.from_tags(ast.literal_eval(said.stdout))
    assert found is not None
    return found


def test_a_process_is_told_from_a_later_one_with_its_pid(ended: Identity) -> None:
    mine = Identity.of_this_process()
    assert mine.pid == os.getpid()
    assert mine.is_alive
    assert Identity.from_tags(mine.as_tags()) == replace(
        mine, process_started=round(mine.process_started, 2)
    )
    assert Identity.from_tags(mine.as_tags()).is_alive  # type: ignore[union-attr]
    earlier = replace(mine, process_started=mine.process_started - 100)
    assert earlier.is_known_dead
    assert ended.is_known_dead
    assert not replace(ended, host="elsewhere").is_known_dead, "nothing is known of other hosts"
    assert Identity.from_tags({"ragloop.pid": "7"}) is None


def test_a_step_of_the_clock_makes_nobody_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel moves the boot, and with it the start of every process, along with the clock."""
    mine = Identity.of_this_process()
    booted, create_time = psutil.boot_time(), psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: booted + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
    assert mine.is_alive


def test_a_process_of_an_earlier_boot_is_dead() -> None:
    """At the same time after each boot a machine starts the same services, with the same pids."""
    mine = Identity.of_this_process()
    assert mine.boot, "Linux names its boots"
    assert replace(mine, boot="another").is_known_dead


@pytest.mark.integration
def test_mlflow_runs_of_dead_processes_are_failed_and_no_others(
    tmp_path: Path, ended: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag.release import store

    artifacts, params = Artifacts(tmp_path), Params()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store.configure(artifacts, params)
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = store.experiment_id(client, artifacts, params)
    mine = {store.PROJECT: store.project_id(artifacts)}
    tags = {
        "dead": {**mine, **ended.as_tags()},
        "alive": reconcile.identity_tags(artifacts),
        "elsewhere": {**mine, **replace(ended, host="elsewhere").as_tags()},
        "unsigned": mine,
        "of another project": {store.PROJECT: "other", **ended.as_tags()},
    }
    ids = {
        name: client.create_run(experiment, run_name=name, tags=tagged).info.run_id
        for name, tagged in tags.items()
    }
    assert reconcile.fail_dead_runs(artifacts, params) == ["dead"]
    status = {name: client.get_run(run_id).info.status for name, run_id in ids.items()}
    assert status.pop("dead") == "FAILED"
    assert set(status.values()) == {"RUNNING"}
    assert reconcile.fail_dead_runs(artifacts, params) == []


def unsigned(*, seconds: float) -> FlowRun:
    """A run that names no process, due an hour ago, Pending for so many seconds."""
    now = datetime.now(UTC)
    pending: State[None] = State(type=StateType.PENDING, timestamp=now - timedelta(seconds=seconds))
    return FlowRun(flow_id=uuid4(), expected_start_time=now - timedelta(hours=1), state=pending)


def test_a_run_that_names_no_process_is_judged_by_its_state_and_not_by_when_it_was_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an outage every run is late, and its program takes seconds to start."""
    minute_ago = datetime.now(UTC) - timedelta(seconds=60)
    monkeypatch.setenv("RAGLOOP_OWN_PREFECT", "true")
    assert not reconcile.has_died(unsigned(seconds=5), "project", minute_ago)
    assert reconcile.has_died(unsigned(seconds=90), "project", minute_ago)
    monkeypatch.delenv("RAGLOOP_OWN_PREFECT")
    assert not reconcile.has_died(unsigned(seconds=90), "project", minute_ago)


def test_a_run_is_not_dead_while_a_process_was_started_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAGLOOP_OWN_PREFECT", "true")
    run, minute_ago = unsigned(seconds=90), datetime.now(UTC) - timedelta(seconds=60)
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PREFECT__FLOW_RUN_ID": str(run.id)},
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert not reconcile.has_died(run, "project", minute_ago)
        process.communicate()
    assert reconcile.has_died(run, "project", minute_ago)


def flow_run(name: str, *, minute: int, by_hand: bool = False) -> FlowRun:
    return FlowRun(
        flow_id=uuid4(),
        name=name,
        deployment_id=None if by_hand else uuid4(),
        expected_start_time=datetime(2026, 11, 22, 3, minute, tzinfo=UTC),
    )


def test_the_newest_run_of_the_schedule_is_the_one_to_take_up() -> None:
    runs = [
        flow_run("old", minute=2),
        flow_run("new", minute=9),
        flow_run("by hand", minute=11, by_hand=True),
    ]
    chosen = resume.newest_scheduled(runs)
    assert chosen
    assert chosen.name == "new"
    later = [*runs, flow_run("retrain 2026-11-22", minute=5), flow_run("watch", minute=12)]
    retraining = resume.newest_scheduled(later)
    assert retraining
    assert retraining.name == "retrain 2026-11-22", "before a look of the watch that died after it"
    assert resume.newest_scheduled(runs[2:]) is None
    assert resume.newest_scheduled([]) is None


def test_the_tag_of_a_run_counts_how_often_it_was_taken_up() -> None:
    assert resume.times_resumed([]) == 0
    assert resume.times_resumed(["mine", "resumed:2", "resumed:x"]) == 2


def test_a_run_that_was_taken_up_often_enough_waits_for_the_schedule() -> None:
    """No server is asked: nothing is ordered."""
    run = flow_run("tired", minute=1)
    run.tags = ["resumed:3"]
    (line,) = resume.resume([run], limit=3)
    assert "taken up 3 times (up.max_resumes) and now waits for the schedule" in line
