"""Which process on which host: a pid that is used again is told apart by the start time.

Kept in the lock's file, as labels of a Prefect run and as tags of an MLflow run; what it says
decides whether the one who began something can still end it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Clocks of the kernel and of the system differ by less.
_CLOCK_SECONDS = 1.0
_HOST, _PID, _STARTED = "ragloop.host", "ragloop.pid", "ragloop.process_started"


@dataclass(frozen=True)
class Identity:
    """A process; `process_started` is in seconds since the epoch."""

    pid: int
    process_started: float
    host: str

    @classmethod
    def of_this_process(cls) -> Identity:
        """Who asks."""
        import psutil

        return cls(os.getpid(), psutil.Process().create_time(), platform.node())

    @classmethod
    def from_tags(cls, tags: Mapping[str, Any]) -> Identity | None:
        """Who is named by these tags or labels; None where nobody is."""
        try:
            return cls(int(tags[_PID]), float(tags[_STARTED]), str(tags[_HOST]))
        except (KeyError, TypeError, ValueError):
            return None

    def as_tags(self) -> dict[str, str]:
        """Tags of an MLflow run, labels of a Prefect run."""
        started = f"{self.process_started:.2f}"
        return {_HOST: self.host, _PID: str(self.pid), _STARTED: started}

    @property
    def is_here(self) -> bool:
        return self.host == platform.node()

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs; only known on its own host."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.process_started) < _CLOCK_SECONDS
            return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    @property
    def is_known_dead(self) -> bool:
        """Whether it ran on this host and runs no more; of other hosts nothing is known."""
        return self.is_here and not self.is_alive
