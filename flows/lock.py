"""One writer per project: the lock that the flow and the command line take alike.

The lock is the kernel's, on `.ragloop/lock`, so it is free the moment its holder and the holder's
guards are gone, however they died; nothing has to judge whether a file is stale. The file says who
holds it, for people and for messages: pid, start of the process, host, what, since; its
modification time is the heartbeat. Where hosts share the folder, another host's heartbeat counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.identity import Identity
from rag.errors import BusyError

HEARTBEAT_SECONDS = 10.0
#: A holder on another host that has been silent for this long is dead.
SILENCE_SECONDS = 6 * HEARTBEAT_SECONDS
#: How long to wait for the guards of a holder that was killed.
TAKEOVER_SECONDS = 30.0
#: How often a waiting run looks whether the lock is free.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Holder(Identity):
    """Who holds the lock; `since` is UTC."""

    what: str
    since: str

    def spoken(self) -> str:
        """For example `ragloop run (pid 1234 on host9, since 2026-11-22 14:03:22 UTC)`."""
        return f"{self.what} (pid {self.pid} on {self.host}, since {self.since})"


@dataclass
class _Held:
    descriptor: int
    depth: int
    stop: threading.Event


_held: dict[Path, _Held] = {}


@contextmanager
def hold(
    path: Path,
    what: str,
    *,
    wait_seconds: float = 0.0,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Holds the lock for the block; BusyError when another live process has it.

    That is said at once, or after `wait_seconds`; `on_wait` is told once who is waited for. A
    process that holds it already may hold it again: the command line takes it, then the flow.
    """
    key = path.resolve()
    if key in _held:
        _held[key].depth += 1
    else:
        _held[key] = _acquire_in_time(key, what, wait_seconds, on_wait)
    try:
        yield
    finally:
        held = _held[key]
        held.depth -= 1
        if held.depth == 0:
            del _held[key]
            held.stop.set()
            os.ftruncate(held.descriptor, 0)
            os.close(held.descriptor)


def holder(path: Path) -> Holder | None:
    """Who holds the lock, as its file says; None when nobody does or nothing is written yet."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def held_descriptors() -> tuple[int, ...]:
    """File descriptors of the locks that this process holds, for its guards to inherit."""
    return tuple(held.descriptor for held in _held.values())


def _acquire_in_time(
    path: Path, what: str, wait_seconds: float, on_wait: Callable[[str], None]
) -> _Held:
    deadline = time.monotonic() + wait_seconds
    is_told = False
    while True:
        try:
            return _acquire(path, what)
        except BusyError as busy:
            left = deadline - time.monotonic()
            if left <= 0:
                if not wait_seconds:
                    raise
                waited = f"waited for {wait_seconds / 60:g} min (schedule.wait_minutes)"
                raise BusyError(f"{busy}; {waited}") from None
            if not is_told:
                on_wait(_waiting(path))
                is_told = True
            time.sleep(min(_LOOK_SECONDS, left))


def _waiting(path: Path) -> str:
    found = holder(path)
    return f"waiting for {found.spoken() if found else 'another run'}"


def _acquire(path: Path, what: str) -> _Held:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, path)
        _refuse_other_host(path)
    except BaseException:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(_this_process(what))).encode(), 0)
    stop = threading.Event()
    threading.Thread(target=_beat, args=(path, stop), daemon=True, name="lock heartbeat").start()
    return _Held(descriptor, 1, stop)


def _lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = holder(path)
            dying = found is not None and found.is_here and not found.is_alive
            if not dying or time.monotonic() > deadline:
                raise _busy(found) from None
            time.sleep(0.1)
        else:
            return


def _refuse_other_host(path: Path) -> None:
    """Not every shared file system passes on locks between hosts; heartbeats it does."""
    found = holder(path)
    if found and not found.is_here and time.time() - path.stat().st_mtime < SILENCE_SECONDS:
        raise _busy(found)


def _busy(found: Holder | None) -> BusyError:
    if found is None:
        return BusyError("busy: another run of this project has just started; try again later")
    way_out = f"stop it with: kill {found.pid}" if found.is_here else "stop it on its host"
    return BusyError(f"busy: {found.spoken()} is at work; wait for it, or {way_out}")


def _this_process(what: str) -> Holder:
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return Holder(**asdict(Identity.of_this_process()), what=what, since=since)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):  # the folder may be away for a moment
            os.utime(path)
