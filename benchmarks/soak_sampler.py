"""Looks at the live system all the time, from outside: champion, running runs, processes, disk."""

from __future__ import annotations

import sqlite3
import threading
import time

import psutil

from benchmarks.soak_records import Sample, live_champion, running_runs
from benchmarks.soak_system import System, sizes

_SECONDS = 1.0
#: Walking the folders costs more than the rest of a sample.
_SIZES_EVERY = 10
MEASURED = (
    *(".dvc/cache", ".ragloop/checkpoints", ".ragloop/index", ".ragloop/logs"),
    *(".ragloop/mlartifacts", ".ragloop/mlflow.db", ".ragloop/notices.jsonl"),
    *(".ragloop/prefect", ".ragloop/vectors", ".ragloop/workspace", ".git"),
)


class Sampler:
    """Takes a sample a second from `start` to `stop`."""

    def __init__(self, system: System) -> None:
        self.samples: list[Sample] = []
        self._system = system
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_SECONDS):
            self.samples.append(self._sample())

    def _sample(self) -> Sample:
        system = self._system
        flows = system.flow_processes()
        scheduler = system.programs("-m", "flows.schedule")
        champions = running = None
        alive: set[str] = set()
        try:
            champions = live_champion(system)
            found = running_runs(system)
        except sqlite3.Error:
            pass  # locked or gone, by one of our own faults: None says so
        else:
            running = frozenset(found)
            pids = {process.pid for process in flows.values()}
            for run, (store, pid) in found.items():
                if (store == "prefect" and run in flows) or pid in pids or _lives(pid):
                    alive.add(run)
        measured = not len(self.samples) % _SIZES_EVERY
        return Sample(
            seconds=time.monotonic(),
            clock=system.clock.now(),
            champions=champions,
            running=running,
            alive=frozenset(alive),
            scheduler=scheduler[0].pid if scheduler else None,
            sizes=sizes(system.root, MEASURED) if measured else {},
        )


def _lives(pid: int | None) -> bool:
    """Whether a run by hand still has its process; one of `ragloop up` is found by its mark."""
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
