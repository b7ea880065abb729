"""A run's turn: who waits for whom, what is judged again, and what a stage's time limit ends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows import dvc, lock
from flows.key import REFRESH, concluded_row
from flows.refresh import champions_params
from rag.artifacts import Artifacts
from rag.errors import BusyError, RagError
from rag.params import Params, parse_params
from tests.flows.programs import are_gone, pids_in, set_params

HOLD = """
import sys, time
from pathlib import Path
from flows import lock
with lock.hold(Path(sys.argv[1]), "another run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_who_may_wait_gets_the_lock_when_it_is_free(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    told: list[str] = []
    threading.Timer(0.5, holder.communicate).start()
    began = time.monotonic()
    with lock.hold(tmp_path / "lock", "ours", wait_seconds=60, on_wait=told.append):
        assert time.monotonic() - began > 0.4
        assert holder.wait(10) == 0
    assert [line.split(" (")[0] for line in told] == ["waiting for another run"]


def test_waiting_has_a_bound(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    refused = r"another run \(pid .*waited for 0.01 min \(schedule.wait_minutes\)"
    with (
        pytest.raises(BusyError, match=refused),
        lock.hold(tmp_path / "lock", "ours", wait_seconds=0.6),
    ):
        pass
    holder.communicate()


def test_a_stage_that_takes_too_long_is_ended_with_its_children(dvc_project: Artifacts) -> None:
    set_params(dvc_project.root, x=1, seconds=60)
    with pytest.raises(RagError, match=r"the limit of schedule\.stage_timeout_minutes; the next"):
        dvc.reproduce("work", dvc_project, timeout_seconds=2)
    if (dvc_project.root / "pids").exists():
        assert are_gone(pids_in(dvc_project.root), within_seconds=0.5)


def test_a_refresh_that_was_turned_down_does_not_judge_a_retraining_again() -> None:
    trained = {"outcome": "REJECT", "key": "k1"}
    refused = {"outcome": "REJECT", "key": "k2", "kind": REFRESH}
    promoted = {"outcome": "PROMOTE", "key": "k3", "kind": REFRESH}
    assert concluded_row([trained, refused], "k1") is trained
    assert concluded_row([trained, promoted], "k1") is None, "there is another champion now"
    assert concluded_row([refused, trained], "k2", kind=REFRESH) is refused
    assert concluded_row([refused, trained], "k1", kind=REFRESH) is None


def test_a_refresh_has_the_champions_models_and_todays_rules() -> None:
    today = parse_params(
        {
            "reader": {"lora": {"rank": 4}},
            "evaluate": {"resamples": 500},
            "gate": {"floors": {"f1": 20.0}},
        }
    )
    released = parse_params({"reader": {"lora": {"rank": 16}}, "evaluate": {"resamples": 900}})
    used = champions_params(today, released)
    assert used.reader.lora is not None
    assert used.reader.lora.rank == 16
    assert used.evaluate.resamples == 500
    assert used.gate.floors == {"f1": 20.0}
    assert champions_params(today, Params()).retriever == Params().retriever
