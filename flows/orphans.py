"""Programs whose guard was killed: found by the mark that it left in their environment, and ended.

A guard ends its group when its starter is gone. Nobody does when the guard itself is killed, as by
`kill -9` of everything: then a stage goes on writing, and a server keeps its port. Each guard has
its record locked while it lives, so a record that can be locked is that of a dead one; whoever
carries its mark is an orphan. No name of a program is looked at, and no pid is trusted alone.
"""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows import guard, processes
from rag.artifacts import Artifacts

if TYPE_CHECKING:
    import psutil

#: For an orphan to end by itself before it is killed.
GRACE_SECONDS = 5.0


def end_orphans(artifacts: Artifacts) -> int:
    """Ends what dead guards of this host have left, and waits for it; says how many processes."""
    dead = _dead_guards(processes.records(artifacts.root))
    if not dead:
        return 0
    orphans = _marked(frozenset(dead))
    for orphan in orphans:
        _signal(orphan, terminate=True)
    stubborn = _await_end(orphans)
    for orphan in stubborn:
        _signal(orphan, terminate=False)
    _await_end(stubborn)
    for record in dead.values():
        record.unlink(missing_ok=True)
    return len(orphans)


def _dead_guards(folder: Path) -> Mapping[str, Path]:
    """`{mark: record}` of the guards on this host that live no more."""
    records = folder.glob(f"{platform.node()}-*.json") if folder.is_dir() else ()
    return {record.stem: record for record in records if _can_be_locked(record)}


def _can_be_locked(record: Path) -> bool:
    try:
        descriptor = os.open(record, os.O_RDONLY)
    except FileNotFoundError:  # its guard has just ended in good order
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _marked(marks: frozenset[str]) -> list[psutil.Process]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(guard.MARK) in marks:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has just ended, or is none of ours
    return found


def _await_end(orphans: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Waits for a while; returns those that still run. In a container nobody may reap the dead."""
    deadline = time.monotonic() + GRACE_SECONDS
    left = [orphan for orphan in orphans if _is_at_work(orphan)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [orphan for orphan in left if _is_at_work(orphan)]
    return left


def _is_at_work(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, *, terminate: bool) -> None:
    """psutil looks at the start time first: another process with the same pid is left alone."""
    import psutil

    try:
        if terminate:
            process.terminate()
        else:
            process.kill()
    except psutil.NoSuchProcess:
        return
