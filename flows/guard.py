"""Runs one command in a process group of its own and ends that group when our starter is gone.

    python -I guard.py COMMAND [ARGUMENT]...

The starter holds the other end of this process's standard input. When that closes, because the
starter asked for it or because it was killed by whatever means, the command gets SIGTERM, then
every process of the group, and at last SIGKILL: a stage whose flow is dead must not go on writing.
Imports the standard library only, so that it is up at once and small.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 8.0
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """The command's exit code, or 128 + the signal that ended it."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not SIG_IGN, which the command would inherit.
        signal.signal(name, lambda *_: None)
    if sys.platform == "linux":
        # Orphans of the group become our children: in a container nobody else may reap them.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    threading.Thread(target=_end_when_orphaned, args=(child,), daemon=True).start()
    code = child.wait()
    _end_group(child.pid)  # whatever the command left behind
    return code if code >= 0 else 128 - code


def _end_when_orphaned(child: subprocess.Popen[bytes]) -> None:
    """First the command alone, which may end its children in order; `main` does the rest."""
    while os.read(sys.stdin.fileno(), 1024):
        continue
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
    sys.exit(main(sys.argv[1:]))
