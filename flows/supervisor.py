"""Keeps programs running: each is watched, and started again when it ends or hangs.

A part hangs when its address has not given a healthy answer for `hang_seconds`. Waits before a
start double with every end of the part within `restart_minutes`; one end more than `max_restarts`
stops all parts, since a part that cannot stay up is a fault for people to see. A part that ends
before it has answered once is not tried again: what is wrong is then in the settings.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from flows import orphans, processes, server
from flows.up_log import UpLog
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import UpParams

MAX_BACKOFF_SECONDS = 60.0
_WATCH_SECONDS = 0.1
_FIRST_CHECK_SECONDS = 0.2


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Part:
    """One program.

    `health` answers with status 200 while it is well; `address` is what people open. It is started
    once the part `needs` is well, and after `before` has returned; a RagError of that counts as an
    end. `after` follows its last end. `variables` are added to our environment.
    """

    name: str
    command: Sequence[str]
    health: str
    address: str = ""
    needs: str | None = None
    before: Callable[[], None] = _nothing
    after: Callable[[], None] = _nothing
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Kept:
    """A part over all its starts; times are those of the monotonic clock."""

    part: Part
    program: processes.Program | None = None
    pulse: _Pulse | None = None
    started: float = 0.0
    due: float = 0.0
    is_announced: bool = False
    has_worked: bool = False
    ends: list[float] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        return self.program is not None and self.pulse is not None and self.pulse.has_answered


class Supervisor:
    """`run` returns only by an exception, and no part is running then."""

    def __init__(self, artifacts: Artifacts, params: UpParams, log: UpLog) -> None:
        self._artifacts = artifacts
        self._params = params
        self._log = log
        self._kept: list[_Kept] = []

    def run(self, parts: Sequence[Part], on_ready: Callable[[], None] = _nothing) -> NoReturn:
        """Keeps the parts running; RagError when one cannot be kept.

        `on_ready` is called once, when all of them are well for the first time.
        """
        self._kept = [_Kept(part) for part in parts]
        is_ready = False
        try:
            while True:
                for kept in self._kept:
                    self._look_at(kept)
                if not is_ready and all(kept.has_worked for kept in self._kept):
                    is_ready = True
                    on_ready()
                time.sleep(_WATCH_SECONDS)
        finally:
            self._stop_all()

    def _look_at(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.program is None:
            if now >= kept.due and self._may_start(kept.part):
                self._start(kept)
            return
        assert kept.pulse is not None
        code = kept.program.exit_code
        silence = now - max(kept.started, kept.pulse.last_answer)
        patience = self._params.hang_seconds if kept.pulse.has_answered else server.START_SECONDS
        if code is not None:
            self._ended(kept, f"ended with exit code {code}")
        elif silence > patience:
            kept.program.stop(at_once=True)
            self._ended(kept, f"has given no healthy answer for {silence:.0f} s")
        elif kept.is_well and not kept.is_announced:
            kept.is_announced = kept.has_worked = True
            self._log.listen(kept.part.name)
            shown = f"  [green]✓[/] {kept.part.name:16} {kept.part.address:56}"
            self._log.say(f"{shown} [dim]{now - kept.started:8.1f} s[/]")

    def _may_start(self, part: Part) -> bool:
        return part.needs is None or any(
            other.is_well for other in self._kept if other.part.name == part.needs
        )

    def _start(self, kept: _Kept) -> None:
        part = kept.part
        try:
            part.before()
        except RagError as error:  # what it needs may be gone again
            self._ended(kept, f"cannot start: {error}")
            return
        self._log.silence(part.name)
        variables = {**os.environ, **part.variables}
        kept.program = processes.start(part.command, self._artifacts.root, variables=variables)
        kept.started = time.monotonic()
        kept.is_announced = False
        kept.pulse = _Pulse(part.health, self._params.check_seconds)
        threading.Thread(target=self._read, args=(part.name, kept.program), daemon=True).start()

    def _ended(self, kept: _Kept, how: str) -> None:
        if kept.pulse:
            kept.pulse.stop()
        kept.program = kept.pulse = None
        orphans.end_orphans(self._artifacts)  # where it was the guard that was killed
        name, limit = kept.part.name, self._params.max_restarts
        self._log.show_kept(name)
        if not kept.has_worked:
            raise RagError(f"{name} {how} before it was up; see .ragloop/logs/up.log")
        now = time.monotonic()
        since = now - 60 * self._params.restart_minutes
        kept.ends = [*(end for end in kept.ends if end > since), now]
        count = len(kept.ends)
        if count > limit:
            raise RagError(
                f"{name} {how}, end number {count} within "
                f"{self._params.restart_minutes:g} minutes (up.max_restarts is {limit}): all parts "
                "are stopped; see .ragloop/logs/up.log, then run `ragloop up`"
            )
        wait = min(self._params.backoff_seconds * 2 ** (count - 1), MAX_BACKOFF_SECONDS)
        kept.due = now + wait
        self._log.say(
            f"  [yellow]![/] {name} {how}; it is started again in {wait:g} s ({count} of {limit})"
        )

    def _stop_all(self) -> None:
        """The last part first, as it may use the others until its end."""
        for kept in reversed(self._kept):
            if kept.pulse:
                kept.pulse.stop()
            if kept.program:
                kept.program.stop()
                kept.part.after()

    def _read(self, name: str, program: processes.Program) -> None:
        for line in program.output or ():
            if line.strip():
                self._log.add(name, line.rstrip())


class _Pulse:
    """Asks a program's address again and again, so that nobody else waits for its answers."""

    def __init__(self, url: str, seconds: float) -> None:
        self.last_answer = 0.0
        self._url = url
        self._seconds = seconds
        self._stopped = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    @property
    def has_answered(self) -> bool:
        return self.last_answer > 0.0

    def stop(self) -> None:
        self._stopped.set()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            if server.is_healthy(self._url):
                self.last_answer = time.monotonic()
            often = min(self._seconds, _FIRST_CHECK_SECONDS)
            self._stopped.wait(self._seconds if self.has_answered else often)
