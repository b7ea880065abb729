"""Which process on which host: a pid that is used again is told apart by the start time.

Kept in the lock's file, as labels of a Prefect run and as tags of an MLflow run; what it says
decides whether the one who began something can still end it. On Linux the start counts from the
boot, which has a name of its own: counted from the epoch it would move with every step of the
clock, and a process at work would be taken for dead.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

#: Where the start counts from the epoch, clocks of the kernel and of the system differ by less.
_CLOCK_SECONDS = 1.0
_HOST, _PID, _STARTED = "ragloop.host", "ragloop.pid", "ragloop.process_started"
_BOOT = "ragloop.boot"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Identity:
    """A process; `process_started` is in seconds since `boot`, since the epoch where that is ""."""

    pid: int
    process_started: float
    host: str
    boot: str = field(default="", kw_only=True)

    @classmethod
    def of_this_process(cls) -> Identity:
        """Who asks."""
        import psutil

        boot = _boot()
        return cls(os.getpid(), _started(psutil.Process(), boot), platform.node(), boot=boot)

    @classmethod
    def from_tags(cls, tags: Mapping[str, Any]) -> Identity | None:
        """Who is named by these tags or labels; None where nobody is."""
        try:
            return cls(
                int(tags[_PID]),
                float(tags[_STARTED]),
                str(tags[_HOST]),
                boot=str(tags.get(_BOOT, "")),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def as_tags(self) -> dict[str, str]:
        """Tags of an MLflow run, labels of a Prefect run."""
        started = f"{self.process_started:.2f}"
        tags = {_HOST: self.host, _PID: str(self.pid), _STARTED: started}
        return {**tags, _BOOT: self.boot} if self.boot else tags

    @property
    def is_here(self) -> bool:
        return self.host == platform.node()

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs; only known on its own host."""
        import psutil

        if self.boot and self.boot != _boot():
            return False
        try:
            process = psutil.Process(self.pid)
            is_same = abs(_started(process, self.boot) - self.process_started) < _CLOCK_SECONDS
            return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    @property
    def is_known_dead(self) -> bool:
        """Whether it ran on this host and runs no more; of other hosts nothing is known."""
        return self.is_here and not self.is_alive


def _boot() -> str:
    """The name that the kernel has given to this boot of the machine; empty where it gives none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(process: psutil.Process, boot: str) -> float:
    """Seconds from the boot, if it has a name, or from the epoch, to the start of a process."""
    import psutil

    since_epoch = process.create_time()
    # Both move with the clock, by as much.
    return since_epoch - psutil.boot_time() if boot else since_epoch
