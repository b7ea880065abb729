"""Programs that we start: each below a guard, so that none outlives us.

A program runs in a process group of its own (see `guard.py`); `stop` ends the whole group, and so
does our death. Output is read line by line while the caller keeps the time.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from flows import guard, lock
from rag.artifacts import Artifacts

#: The guard needs three times its grace to end a group that ignores SIGTERM.
STOP_SECONDS = 4 * guard.GRACE_SECONDS


class Program:
    """A running command; its output, if read at all, is standard output and errors in one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of the guard; the command itself is its child."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> IO[str] | None:
        return self._process.stdout

    def wait(self, timeout_seconds: float | None = None) -> int:
        """The exit code, when the command and its whole group are gone."""
        return self._process.wait(timeout_seconds)

    def stop(self, *, at_once: bool = False) -> None:
        """Ends the whole group and waits for it; does nothing to a program that has ended.

        `at_once` asks nobody first: for a program that answers no more.
        """
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                if at_once:
                    self._process.stdin.write("\n")
                self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start(
    command: Sequence[str],
    folder: Path,
    *,
    log: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Program:
    """Starts a command below a guard; output goes to `log`, or is read through `Program.output`.

    `folder` is the project's: the command runs there, and the guard keeps its record below. While
    we hold the project's lock the guard holds it with us, so nobody takes over before the group has
    ended.
    """
    held = lock.held_descriptors()
    log_file = log.open("a", encoding="utf-8") if log else None
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", str(Path(guard.__file__))),
                *(str(records(folder)), *command),
            ],
            cwd=folder,
            env=dict(variables) if variables is not None else None,
            stdin=subprocess.PIPE,
            stdout=log_file or subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=held,
        )
    finally:
        if log_file:
            log_file.close()
    return Program(process)


def records(folder: Path) -> Path:
    """What the guards of a project say of themselves; see `flows/orphans.py`."""
    return Artifacts(folder.resolve()).state / "guards"


@contextmanager
def running(
    command: Sequence[str],
    folder: Path,
    *,
    log: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """A program that is stopped, with all its children, when the block is left in any way."""
    program = start(command, folder, log=log, variables=variables)
    try:
        yield program
    finally:
        program.stop()


def follow(
    program: Program,
    *,
    on_line: Callable[[str], None],
    poll: Callable[[], None],
    poll_seconds: float = 1.0,
    timeout_seconds: float | None = None,
) -> int:
    """Hands on each line of output, calls `poll` every second, and returns the exit code.

    TimeoutError when the program runs longer than `timeout_seconds`.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(program, lines), daemon=True)
    reader.start()
    started = next_poll = time.monotonic()
    while True:
        now = time.monotonic()
        if timeout_seconds is not None and now - started > timeout_seconds:
            raise TimeoutError(f"stopped after {timeout_seconds:g} seconds")
        if now >= next_poll:
            poll()
            next_poll = now + poll_seconds
        try:
            line = lines.get(timeout=max(0.0, min(next_poll - time.monotonic(), poll_seconds)))
        except queue.Empty:
            continue
        if line is None:
            code = program.wait()
            poll()
            return code
        on_line(line)


def _read_lines(program: Program, lines: queue.Queue[str | None]) -> None:
    """A carriage return ends a line too: universal newlines make progress bars readable."""
    if program.output:
        for line in program.output:
            lines.put(line.rstrip("\n"))
    lines.put(None)
