"""Runs one command in a process group of its own and ends that group when our starter is gone.

    python -I guard.py FOLDER COMMAND [ARGUMENT]...

The starter holds the other end of this process's standard input. When that closes, because the
starter asked for it or because it was killed by whatever means, the command gets SIGTERM, then
every process of the group, and at last SIGKILL: a stage whose flow is dead must not go on writing.
A byte before the end asks for SIGKILL at once. Should the guard itself be killed, its record in
FOLDER and the mark in the environment of all that it started tell whom it has left
(`flows/orphans.py`). Imports the standard library only, so that it is up at once and small.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 8.0
#: In the environment of everything below a guard: the name of its record.
MARK = "RAGLOOP_GUARD"
_PR_SET_CHILD_SUBREAPER = 36


def main(folder: str, command: list[str]) -> int:
    """The command's exit code, or 128 + the signal that ended it."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not SIG_IGN, which the command would inherit.
        signal.signal(name, lambda *_: None)
    if sys.platform == "linux":
        # Orphans of the group become our children: in a container nobody else may reap them.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    mark, record = _record(folder)
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, process_group=0, env={**os.environ, MARK: mark}
    )
    threading.Thread(target=_end_when_orphaned, args=(child,), daemon=True).start()
    code = child.wait()
    _end_group(child.pid)  # whatever the command left behind
    with contextlib.suppress(FileNotFoundError):
        os.unlink(record)
    return code if code >= 0 else 128 - code


def _record(folder: str) -> tuple[str, str]:
    """Says on disk who guards, before there is anything to guard: the mark and the path.

    The record stays locked for as long as this process lives, so nobody has to guess whether it
    does.
    """
    host = os.uname().nodename
    mark = f"{host}-{os.getpid()}-{time.time_ns()}"
    path = os.path.join(folder, f"{mark}.json")
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": host}).encode())
    os.replace(f"{path}.new", path)
    return mark, path


def _end_when_orphaned(child: subprocess.Popen[bytes]) -> None:
    """First the command alone, which may end its children in order; `main` does the rest."""
    is_hurried = False
    while os.read(sys.stdin.fileno(), 1024):
        is_hurried = True
    if is_hurried:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        return
    child.terminate()
    time.sleep(GRACE_SECONDS)
    _end_group(child.pid)


def _end_group(group: int) -> None:
    for name in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, name)
        deadline = time.monotonic() + GRACE_SECONDS
        while _has_members(group) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not _has_members(group):
            return


def _has_members(group: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            continue
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
