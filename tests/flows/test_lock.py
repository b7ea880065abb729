"""One writer per project: busy, taken again, taken over from the dead, held by guards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import lock
from rag.errors import BusyError

HOLD = """
import sys, time
from pathlib import Path
from flows import lock, processes
with lock.hold(Path(sys.argv[1]), "a test"):
    if len(sys.argv) > 2:
        processes.start([sys.executable, "-c", sys.argv[2]], Path.cwd())
    print("held", flush=True)
    time.sleep(60)
"""


def hold_elsewhere(path: Path, *child: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *child], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_free_lock_is_held_and_says_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lock"
    with lock.hold(path, "ragloop run"):
        found = lock.holder(path)
        assert found
        assert (found.pid, found.what) == (os.getpid(), "ragloop run")
        assert found.is_here
        assert found.is_alive
    assert lock.holder(path) is None


def test_the_same_process_may_hold_it_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.hold(path, "outer"):
        with lock.hold(path, "inner"):
            assert lock.held_descriptors()
        found = lock.holder(path)
        assert found
        assert found.what == "outer"
    assert not lock.held_descriptors()


def test_another_process_finds_it_busy_at_once_and_is_told_who(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = hold_elsewhere(path)
    started = time.monotonic()
    with pytest.raises(BusyError) as caught, lock.hold(path, "second"):
        pass
    assert time.monotonic() - started < 1.0
    other.kill()
    other.wait()
    assert f"a test (pid {other.pid} on " in str(caught.value)
    assert f"kill {other.pid}" in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_killed_holder_leaves_it_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = hold_elsewhere(path)
    other.kill()
    other.wait()
    found = lock.holder(path)
    assert found
    assert not found.is_alive, "its file still names the dead process"
    with lock.hold(path, "next"):
        found = lock.holder(path)
        assert found
        assert found.pid == os.getpid()


def test_a_reused_pid_is_not_the_holder(tmp_path: Path) -> None:
    with lock.hold(tmp_path / "lock", "this"):
        found = lock.holder(tmp_path / "lock")
    assert found
    earlier = lock.Holder(**{**vars(found), "process_started": found.process_started - 100})
    assert found.is_alive
    assert not earlier.is_alive


def test_the_next_one_waits_for_what_a_killed_holder_had_started(tmp_path: Path) -> None:
    """The child writes until its guard ends it; only then may anybody else write."""
    marks = tmp_path / "marks"
    child = (
        "import signal, time\n"
        "def slowly(*_):\n"
        "    for _ in range(5):\n"
        f"        time.sleep(0.1); open({str(marks)!r}, 'a').write('x')\n"
        "    raise SystemExit\n"
        "signal.signal(signal.SIGTERM, slowly)\n"
        f"open({str(marks)!r}, 'a').write('x')\n"
        "time.sleep(60)\n"
    )
    other = hold_elsewhere(tmp_path / "lock", child)
    while not (marks.exists() and marks.stat().st_size):
        time.sleep(0.02)
    other.kill()
    other.wait()
    with lock.hold(tmp_path / "lock", "next"):
        assert marks.read_text() == "x" * 6


@pytest.mark.parametrize(("silent_seconds", "is_busy"), [(5, True), (300, False)])
def test_another_host_counts_for_as_long_as_its_heart_beats(
    tmp_path: Path, silent_seconds: int, is_busy: bool
) -> None:
    path = tmp_path / "lock"
    holder = lock.Holder(1, 0.0, "elsewhere.example", "retrain", "2026-11-22 03:00:00 UTC")
    path.write_text(json.dumps(vars(holder)))
    beat = time.time() - silent_seconds
    os.utime(path, (beat, beat))
    if is_busy:
        with pytest.raises(BusyError, match=r"elsewhere\.example"), lock.hold(path, "here"):
            pass
    else:
        with lock.hold(path, "here"):
            pass


def test_the_heart_beats_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    path = tmp_path / "lock"
    with lock.hold(path, "this"):
        os.utime(path, (1, 1))
        time.sleep(0.3)
        assert path.stat().st_mtime > time.time() - 5
