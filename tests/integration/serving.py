"""A running `ragloop up`, and what its tests look at."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from flows import server, up_log
from rag.artifacts import Artifacts
from tests.integration.conftest import TIMEOUT_SECONDS, Project


def wait_until(is_true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def is_program(process: psutil.Process, *words: str) -> bool:
    """Whether these words, one after the other, are on its command line."""
    try:
        said = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return any(said[i : i + len(words)] == list(words) for i in range(len(said)))


def is_at_work(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def training_below(process: subprocess.Popen[str]) -> psutil.Process:
    """The training of the reader, once it runs."""

    def found() -> list[psutil.Process]:
        return [one for one in family(process.pid) if is_program(one, "-m", "rag", "train_reader")]

    wait_until(found, "the reader is never trained")
    return found()[0]


def successor(project: Project, run: str) -> list[tuple[str, str]]:
    """Id and state of the run that was ordered in place of this one, once it is at work."""
    return project.prefect(  # type: ignore[return-value]
        "select id, state_type from flow_run where start_time is not null "
        f"and replace(idempotency_key, '-', '') = 'resume{run.replace('-', '')}'"
    )


def log_of(project: Project) -> str:
    return up_log.log_file(Artifacts(project.root)).read_text()


@contextmanager
def up(project: Project, *, keep_record: bool = False) -> Iterator[subprocess.Popen[str]]:
    """`ragloop up`, once it serves; killed at the end. The record tells it of an earlier kill."""
    record = server.up_record(Artifacts(project.root))
    if not keep_record:
        record.unlink(missing_ok=True)
    before = record.stat().st_mtime_ns if record.exists() else 0
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up"],
        cwd=project.root,
        env=dict(project.environment),
        text=True,
    )

    def serves() -> bool:
        return record.exists() and record.stat().st_mtime_ns != before

    try:
        wait_until(lambda: serves() or process.poll() is not None, "up does not start")
        assert process.poll() is None, log_of(project)
        yield process
    finally:
        process.kill()
        process.wait()
