"""`ragloop up`: servers answer, a scheduled run really fires, and nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import psutil
import pytest

from flows import manual, server
from rag.artifacts import Artifacts
from tests.integration.conftest import TIMEOUT_SECONDS, Finished, Project

pytestmark = pytest.mark.integration

SCHEDULED = (
    "select state_type, state_name from flow_run "
    "where deployment_id is not null and auto_scheduled = 1 and state_type = 'COMPLETED'"
)


def wait_until(is_true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


@pytest.fixture(scope="module")
def served(
    project: Project, first_run: Finished, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str]]:
    """`ragloop up` with a short interval, and something new to train."""
    assert first_run.code == 0, first_run.err
    manual.write_changes(
        Artifacts(project.root),
        [
            "reader.lora.rank=2",
            "schedule.interval_seconds=5",
            f"schedule.prefect_port={server.free_port()}",
            f"schedule.mlflow_port={server.free_port()}",
        ],
    )
    log = tmp_path_factory.mktemp("up") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up"],
            cwd=project.root,
            env=dict(project.environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    record = server.up_record(Artifacts(project.root))
    wait_until(lambda: record.exists() or process.poll() is not None, "up does not start")
    assert process.poll() is None, log.read_text()
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()
    print(log.read_text())


def test_both_servers_answer(project: Project, served: subprocess.Popen[str]) -> None:
    addresses = json.loads(server.up_record(Artifacts(project.root)).read_text())
    assert set(addresses) == {"prefect", "mlflow"}
    for address in addresses.values():
        with urllib.request.urlopen(address, timeout=20) as page:
            assert page.status == 200
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


def test_kill_9_leaves_no_process_and_the_next_start_works(
    project: Project, served: subprocess.Popen[str]
) -> None:
    assert served.poll() is not None
    record = server.up_record(Artifacts(project.root))
    record.unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up"], cwd=project.root, env=dict(project.environment)
    )
    wait_until(record.exists, "up does not start again")
    everybody = family(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(everybody, timeout=40)
    assert not alive, [process.cmdline() for process in alive]
    assert project.ragloop("releases").code == 0
