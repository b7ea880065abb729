"""Programs below a guard: none outlives its starter, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import guard, processes
from tests.flows.programs import are_gone, pids_in

#: A program with a child; both ignore SIGTERM if asked to. Writes the two pids.
FAMILY = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open("pids.tmp", "w").write(f"{os.getpid()} {child.pid}")
os.rename("pids.tmp", "pids")
print("ready", flush=True)
time.sleep(60)
"""


def test_output_exit_code_and_polls_come_through(tmp_path: Path) -> None:
    code = "import time; print('one'); print('two'); time.sleep(0.5); raise SystemExit(7)"
    lines: list[str] = []
    polls: list[float] = []
    with processes.running([sys.executable, "-u", "-c", code], tmp_path) as program:
        found = processes.follow(
            program,
            on_line=lines.append,
            poll=lambda: polls.append(time.monotonic()),
            poll_seconds=0.1,
        )
    assert found == 7
    assert lines == ["one", "two"]
    assert len(polls) >= 4


def test_a_signal_is_told_as_a_shell_does(tmp_path: Path) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    with processes.running([sys.executable, "-c", code], tmp_path) as program:
        assert program.wait(20) == 128 + 9


def test_leaving_the_block_ends_the_whole_group(tmp_path: Path) -> None:
    with processes.running([sys.executable, "-c", FAMILY], tmp_path) as program:
        pids = pids_in(tmp_path)
        assert program.exit_code is None
    assert program.exit_code is not None
    assert are_gone(pids, within_seconds=0.5)


def test_one_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = tmp_path / "guard.py"
    source = Path(str(guard.__file__)).read_text()
    impatient.write_text(source.replace("GRACE_SECONDS = 8.0", "GRACE_SECONDS = 0.3"))
    monkeypatch.setattr(guard, "__file__", str(impatient))
    with processes.running([sys.executable, "-c", FAMILY, "stubborn"], tmp_path):
        pids = pids_in(tmp_path)
    assert are_gone(pids, within_seconds=0.5)


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    code = FAMILY.rpartition("time.sleep")[0]
    with processes.running([sys.executable, "-c", code], tmp_path) as program:
        pids = pids_in(tmp_path)
        assert program.wait(20) == 0
    assert are_gone(pids, within_seconds=0.5)


def test_the_death_of_the_starter_ends_the_group(tmp_path: Path) -> None:
    starter = (
        "import sys, time\nfrom pathlib import Path\nfrom flows import guard, processes\n"
        f"processes.start([sys.executable, '-c', {FAMILY!r}], Path({str(tmp_path)!r}))\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", starter], env=dict(os.environ))
    pids = pids_in(tmp_path)
    process.kill()
    process.wait()
    assert are_gone(pids)


def test_a_time_limit_ends_it(tmp_path: Path) -> None:
    with (
        pytest.raises(TimeoutError, match=r"stopped after 1 seconds"),
        processes.running([sys.executable, "-c", FAMILY], tmp_path) as program,
    ):
        processes.follow(
            program,
            on_line=lambda _: None,
            poll=lambda: None,
            poll_seconds=0.1,
            timeout_seconds=1,
        )
    assert are_gone(pids_in(tmp_path), within_seconds=0.5)
