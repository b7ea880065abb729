"""`ragloop up`: servers answer, a scheduled run really fires, and nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from flows import manual, server
from rag.artifacts import Artifacts
from tests.integration.conftest import Finished, Project
from tests.integration.serving import (
    family,
    is_at_work,
    is_program,
    log_of,
    successor,
    training_below,
    up,
    wait_until,
)

pytestmark = pytest.mark.integration

SCHEDULED = (
    "select state_type, state_name from flow_run "
    "where deployment_id is not null and auto_scheduled = 1 and state_type = 'COMPLETED'"
)


@pytest.fixture(scope="module")
def served(project: Project, first_run: Finished) -> Iterator[subprocess.Popen[str]]:
    """`ragloop up` with a short interval, and something new to train."""
    assert first_run.code == 0, first_run.err
    manual.write_changes(
        Artifacts(project.root),
        [
            "reader.training.epochs=2",
            "schedule.interval_seconds=10",
            f"schedule.prefect_port={server.free_port()}",
            f"schedule.mlflow_port={server.free_port()}",
            f"up.metrics_port={server.free_port()}",
        ],
    )
    with up(project) as process:
        yield process


def test_both_servers_answer(project: Project, served: subprocess.Popen[str]) -> None:
    addresses = json.loads(server.up_record(Artifacts(project.root)).read_text())
    assert set(addresses) == {"prefect", "mlflow", "metrics"}
    for address in addresses.values():
        with urllib.request.urlopen(address, timeout=20) as page:
            assert page.status == 200
            text = page.read().decode()
    assert "ragloop_ledger_rows_total" in text, "the last of them is for Prometheus"
    with urllib.request.urlopen(f"{addresses['prefect']}/ui-settings", timeout=20) as page:
        assert json.load(page)["api_url"] == f"{addresses['prefect']}/api", "what its pages ask"
    assert served.poll() is None


def test_it_refuses_to_start_twice(project: Project, served: subprocess.Popen[str]) -> None:
    second = project.ragloop("up")
    assert second.code == 3
    assert f"busy: ragloop up (pid {served.pid} on " in second.err
    assert second.seconds < 10


def test_a_scheduled_run_fires_that_nobody_started(
    project: Project, served: subprocess.Popen[str]
) -> None:
    before = len(project.ledger())
    wait_until(lambda: len(project.ledger()) > before, "no scheduled run came to a decision")
    assert project.ledger()[-1]["outcome"] in ("PROMOTE", "REJECT", "INCONCLUSIVE")
    wait_until(lambda: project.prefect(SCHEDULED), "no scheduled run is shown as completed")

    def skipped() -> bool:
        return ("COMPLETED", "Skipped") in project.prefect(SCHEDULED)

    wait_until(skipped, "the run after it does not find that nothing changed")
    assert served.poll() is None
    assert project.connections_refused() == []


def test_a_scheduled_run_leaves_the_checkout_alone(
    project: Project, served: subprocess.Popen[str]
) -> None:
    """It trained for longer, in a worktree; what it left is in the state folder."""
    trained = project.root / ".ragloop" / "last_worktree"
    wait_until((trained / "metrics.json").is_file, "no scheduled run has left its results")
    assert (trained / "dvc.lock").read_bytes() != (project.root / "dvc.lock").read_bytes()
    worktrees = subprocess.run(
        ["git", "worktree", "list"], cwd=project.root, capture_output=True, text=True, check=True
    )
    assert served.poll() is None
    assert str(project.root) in worktrees.stdout


def test_doctor_and_metrics_see_the_schedule(
    project: Project, served: subprocess.Popen[str]
) -> None:
    checks = ("schedule", "clock", "prefect-store")
    done = project.ragloop("doctor", "--json", *(f"--only={name}" for name in checks))
    found = {item["name"]: item for item in json.loads(done.out)}
    assert found["schedule"]["level"] == "ok", found
    assert re.match(r"next run 20.* UTC, last tick 20.* UTC ", found["schedule"]["message"]), found
    assert found["clock"]["message"] == "agrees with files and ledger and Prefect's server"
    assert found["prefect-store"]["level"] == "ok", found
    text = project.ragloop("metrics").out
    assert 'ragloop_source_up{source="prefect"} 1.0' in text
    assert "ragloop_serving 1.0" in text
    assert 'ragloop_step_duration_seconds{step="snapshot"}' in text
    assert re.search(r"^ragloop_next_run_timestamp_seconds 1\.\d+e\+09$", text, re.MULTILINE)
    assert served.poll() is None


def test_a_run_by_hand_uses_the_server_that_is_there(
    project: Project, served: subprocess.Popen[str]
) -> None:
    def ran_by_hand() -> bool:
        done = project.ragloop("run", "--json")
        return done.code == 0 and json.loads(done.out)["outcome"] == "SKIPPED"

    wait_until(ran_by_hand, "the lock is never free for a run by hand")
    assert served.poll() is None
    states = project.prefect("select state_name from flow_run where deployment_id is null")
    assert states[-1] == ("Skipped",)


def test_a_server_that_is_killed_comes_back_and_the_schedule_goes_on(
    project: Project, served: subprocess.Popen[str]
) -> None:
    address = json.loads(server.up_record(Artifacts(project.root)).read_text())["prefect"]
    # Its guard has the same words on its command line, behind its own.
    (prefect,) = [
        process
        for process in family(served.pid)
        if is_program(process, "-m", "prefect", "server") and process.cmdline()[1] == "-m"
    ]
    prefect.kill()
    prefect.wait(20)
    wait_until(lambda: server.is_healthy(f"{address}/api/health"), "Prefect's server stays away")
    done = len(project.prefect(SCHEDULED))
    wait_until(lambda: len(project.prefect(SCHEDULED)) > done, "no scheduled run fires any more")
    assert served.poll() is None
    assert "prefect ended with exit code 137; it is started again in 1 s (1 of 5)" in log_of(
        project
    )


def test_sigterm_stops_everything_and_leaves_no_run_running(
    project: Project, served: subprocess.Popen[str]
) -> None:
    everybody = family(served.pid)
    assert len(everybody) >= 7, "three guards, two servers, the schedule, up itself"
    served.send_signal(signal.SIGTERM)
    assert served.wait(60) == 0
    gone, alive = psutil.wait_procs(everybody, timeout=20)
    assert not alive, [process.cmdline() for process in alive]
    assert len(gone) == len(everybody)
    assert project.prefect("select name from flow_run where state_type = 'RUNNING'") == []


def test_kill_9_of_everything_but_a_stage_is_made_good_by_the_next_start(
    project: Project, served: subprocess.Popen[str]
) -> None:
    """A run dies in its training, guards and all; only the training itself is left, an orphan.

    It is ordered here, unless the stop before cut a run short that is taken up again. The next
    `ragloop up` ends the orphan, closes the run in both stores and takes it up again; so
    does the one after it, when only `ragloop up` itself is killed. What had been finished is not
    done again. Nothing else would start a run here for days.
    """
    assert served.poll() is not None
    artifacts = Artifacts(project.root)
    manual.write_changes(
        artifacts,
        [
            "schedule.interval_seconds=1000000",
            "chunk.overlap_sentences=0",
            "reader.training.epochs=1",
        ],
    )
    with up(project) as first:
        if "is taken up again" not in log_of(project):
            address = json.loads(server.up_record(artifacts).read_text())["prefect"]
            ordered = project.python(
                *("-m", "prefect", "deployment", "run", "retrain/scheduled"),
                variables={"PREFECT_API_URL": f"{address}/api"},
            )
            assert ordered.returncode == 0, ordered.stderr
        orphan = training_below(first)
        others = [process for process in family(first.pid) if process != orphan]
        for process in others:  # so that no guard has time to act
            # A group that loses its leader while a member is stopped is hung up by the kernel.
            with suppress(ProcessLookupError, psutil.NoSuchProcess):  # it may just have ended
                if os.getpgid(process.pid) != os.getpgid(orphan.pid):
                    process.suspend()
        for process in others:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        first.wait(20)
    assert is_at_work(orphan), "it has outlived its guard"
    (died,) = project.prefect(
        "select id, name from flow_run where state_type = 'RUNNING' and name like 'retrain%'"
    )
    began = time.monotonic()
    with up(project, keep_record=True) as second:
        wait_until(lambda: successor(project, died[0]), "the dead run is not taken up again")
        seconds = time.monotonic() - began
        assert not is_at_work(orphan)
        assert f"{died[1]} was interrupted: it is taken up again" in log_of(project)
        closed = project.prefect(f"select state_type from flow_run where id = '{died[0]}'")
        assert closed == [("CRASHED",)]
        training_below(second)
        everybody = family(second.pid)
        second.kill()
        second.wait(20)
        _, alive = psutil.wait_procs(everybody, timeout=60)
        assert not [process.cmdline() for process in alive if is_at_work(process)]
    (interrupted,) = successor(project, died[0])
    with up(project, keep_record=True):
        wait_until(
            lambda: ("COMPLETED",) in [row[1:] for row in successor(project, interrupted[0])],
            "the run that was taken up twice does not end",
        )
        (last,) = successor(project, interrupted[0])
        tasks = dict(
            project.prefect(
                f"select name, state_name from task_run where flow_run_id = '{last[0]}'"
            )
        )
        assert {tasks[name] for name in ("prepare", "chunk", "embed", "retrieve")} == {"Cached"}
        assert (tasks["train_reader"], tasks["evaluate"]) == ("Completed", "Completed")
        statuses = project.mlflow("select status from runs order by start_time")
        assert statuses[-1] == ("FINISHED",), "the run of this content, found again by its key"
        assert ("RUNNING",) not in statuses
        assert project.prefect("select name from flow_run where state_type = 'RUNNING'") == []
    print(f"back, and the interrupted run at work again, after {seconds:.1f} s")
    assert seconds < 60
