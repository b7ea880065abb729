"""Parts that die, hang or cannot stay up, with small real servers in place of the big ones."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from flows import guard, orphans, processes, server
from flows.supervisor import Part, Supervisor
from flows.up_log import UpLog, log_file
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import UpParams
from tests.flows.programs import are_gone

#: Answers on the port of its first argument, says its pid, and ends where the second asks for it.
SERVER = """
import http.server, os, sys, threading, time
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
if "fail" in sys.argv:
    print("no such database", flush=True)
    sys.exit(3)
serving = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy)
open("pids", "a").write(f"{os.getpid()}\\n")
threading.Thread(target=serving.serve_forever, daemon=True).start()
if "brief" in sys.argv:
    time.sleep(0.5)
    sys.exit(7)
print("late word", flush=True)
while True:
    time.sleep(0.2)
    print("at work", flush=True)
"""
FAST = UpParams(check_seconds=0.1, hang_seconds=0.7, backoff_seconds=0.05, max_restarts=2)


@dataclass
class Running:
    """A supervisor in a thread: what it raised, and how often it was ready."""

    folder: Path
    thread: threading.Thread | None = None
    raised: list[Exception] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)

    def pids(self) -> list[int]:
        path = self.folder / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def log(self) -> str:
        return log_file(Artifacts(self.folder)).read_text()


class _Stop(Exception):
    """Ends a supervisor that would go on for ever."""


@contextmanager
def supervised(folder: Path, *arguments: str, params: UpParams = FAST) -> Iterator[Running]:
    """One part; stopped, where it still runs, when the block is left."""
    running = Running(folder)
    port = server.free_port()
    leaving = threading.Event()

    def part_before() -> None:
        if leaving.is_set():
            raise _Stop

    command = [sys.executable, "-c", SERVER, str(port), *arguments]
    part = Part("small", command, f"http://127.0.0.1:{port}/", before=part_before)
    log = UpLog(log_file(Artifacts(folder)), params)

    def work() -> None:
        try:
            Supervisor(Artifacts(folder), params, log).run(
                [part], lambda: running.ready.append(time.monotonic())
            )
        except (RagError, _Stop) as error:
            running.raised.append(error)

    running.thread = threading.Thread(target=work)
    running.thread.start()
    try:
        yield running
    finally:
        leaving.set()
        if running.thread.is_alive():
            os.kill(running.pids()[-1], signal.SIGKILL)
        running.thread.join(20)
        log.close()
        assert not running.thread.is_alive()


def wait_until(is_true: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_part_is_started_again_and_ready_is_said_once(tmp_path: Path) -> None:
    with supervised(tmp_path) as running:
        wait_until(lambda: running.ready)
        os.kill(running.pids()[0], signal.SIGKILL)
        wait_until(lambda: "small ended with exit code 137" in running.log())
        wait_until(lambda: running.log().count("✓ small") == 2)
        assert len(running.pids()) == 2
        assert len(running.ready) == 1
        assert "it is started again in 0.05 s (1 of 2)" in running.log()


def test_a_part_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    """SIGSTOP leaves its port open and its answers out; it would not hear SIGTERM either."""
    with supervised(tmp_path) as running:
        wait_until(lambda: running.ready)
        stopped = running.pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: "has given no healthy answer for" in running.log())
        assert are_gone([stopped], within_seconds=1)
        wait_until(lambda: running.log().count("✓ small") == 2)


def test_one_that_cannot_stay_up_stops_all_with_the_reason(tmp_path: Path) -> None:
    with supervised(tmp_path, "brief") as running:
        assert running.thread
        running.thread.join(20)
        (error,) = running.raised
        assert isinstance(error, RagError)
        assert "small ended with exit code 7, end number 3 within 10 minutes" in str(error)
        assert "up.max_restarts is 2" in str(error)
        assert len(running.pids()) == 3, "started once, and twice again"
        assert "started again in 0.05 s (1 of 2)" in running.log()
        assert "started again in 0.1 s (2 of 2)" in running.log()


def test_one_that_never_answers_is_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with supervised(tmp_path, "fail") as running:
        assert running.thread
        running.thread.join(20)
        (error,) = running.raised
    assert str(error).startswith("small ended with exit code 3 before it was up; ")
    assert "small   │ no such database" in capsys.readouterr().err


def test_the_log_is_bounded_and_dated(tmp_path: Path) -> None:
    path = tmp_path / "up.log"
    log = UpLog(path, UpParams(log_megabytes=1, log_files=2))
    log.silence("part")
    for _ in range(400):
        log.add("part", "x" * 10_000)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["up.log", "up.log.1", "up.log.2"]
    assert all(file.stat().st_size <= 1_000_000 for file in files)
    stamp, name, text = path.read_text().splitlines()[-1].split(maxsplit=2)
    assert (stamp[10], stamp[-1], name, text) == ("T", "Z", "part", "x" * 10_000)


def test_what_a_killed_guard_leaves_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    """Another program of the same name, and one below a guard that lives, are left alone."""
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    left = processes.start(sleep, tmp_path)
    kept = processes.start(sleep, tmp_path)
    try:
        wait_until(lambda: psutil.Process(left.pid).children())
        wait_until(lambda: psutil.Process(kept.pid).children())
        orphan = psutil.Process(left.pid).children()[0]
        neighbour = psutil.Process(kept.pid).children()[0]
        assert orphan.environ()[guard.MARK] != neighbour.environ()[guard.MARK]
        os.kill(left.pid, signal.SIGKILL)
        left.wait(5)
        assert orphan.is_running(), "nobody has ended it yet"
        assert orphans.end_orphans(Artifacts(tmp_path)) == 1
        assert are_gone([orphan.pid], within_seconds=0.1)
        assert neighbour.is_running()
        assert len(list(processes.records(tmp_path).iterdir())) == 1
        assert orphans.end_orphans(Artifacts(tmp_path)) == 0
    finally:
        kept.stop()
    assert not list(processes.records(tmp_path).iterdir())
