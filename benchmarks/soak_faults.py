"""The faults of a soak: each is done to the live system, and taken back where it can be.

A kill waits for its victim to be at work. Whatever is held or hidden is given back after some
seconds, in any case. Each function returns whom it hit.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.soak_records import Fault
from benchmarks.soak_system import ROOM_BYTES, System, kill

#: For a victim to come to work: a tick, and what comes before its stage.
PATIENCE_SECONDS = 90.0
#: What is left of a full disk.
LEFT_BYTES = 64 * 1024


class NoVictimError(Exception):
    """Nobody came whom the fault could hit."""


def kill_schedule(system: System, chance: random.Random) -> str:
    """The runner of Prefect, whose flow runs are its children."""
    return _kill(system, chance, "-m", "flows.schedule")


def kill_flow(system: System, chance: random.Random) -> str:
    """The process of the flow run that is at work."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        working = system.working()
        if working:
            time.sleep(chance.uniform(0.0, 15.0))
            kill(working[1])
            return f"run {working[0][:8]}"
        time.sleep(0.2)
    raise NoVictimError("no run came to work")


def kill_dvc(system: System, chance: random.Random) -> str:
    """`dvc repro` of some stage."""
    return _kill(system, chance, "-m", "dvc", "repro")


def kill_stage(system: System, chance: random.Random) -> str:
    """The program of some stage, below DVC."""
    return _kill(system, chance, "-m", "rag")


def kill_prefect(system: System, chance: random.Random) -> str:
    """Prefect's server."""
    return _kill(system, chance, "-m", "prefect", "server")


def kill_mlflow(system: System, chance: random.Random) -> str:
    """MLflow's server, whose worker is another process below it."""
    return _kill(system, chance, "-m", "mlflow", "server")


def kill_up(system: System, _: random.Random) -> str:
    """`ragloop up` itself; a service manager would start it again."""
    assert system.process is not None
    system.process.kill()
    system.process.wait()
    system.restarts.append("killed by the soak")
    system.start()
    return "ragloop up"


def full_disk(system: System, chance: random.Random) -> str:
    """The disk with the project, its stores and its logs has no room."""
    if not system.small_disk:
        raise NoVictimError(f"no disk of its own: {system.no_small_disk}")
    _await_work(system)
    system.resize(shutil.disk_usage(system.root).used + LEFT_BYTES)
    try:
        return _hold(system, chance)
    finally:
        system.resize(ROOM_BYTES)


def mlflow_locked(system: System, chance: random.Random) -> str:
    """Somebody else holds MLflow's database."""
    return _hold_database(system, system.mlflow_store, chance)


def prefect_locked(system: System, chance: random.Random) -> str:
    """Somebody else holds Prefect's database."""
    return _hold_database(system, system.prefect_store, chance)


def mlflow_gone(system: System, chance: random.Random) -> str:
    """MLflow's database is somewhere else for a while."""
    return _hide(system, system.mlflow_store, chance)


def prefect_gone(system: System, chance: random.Random) -> str:
    """The folder with Prefect's database is somewhere else for a while."""
    return _hide(system, system.prefect_store.parent, chance)


def index_gone(system: System, chance: random.Random) -> str:
    """The folder with the indexes is somewhere else for a while."""
    return _hide(system, system.artifacts.state / "index", chance)


def clock_stepped(system: System, _: random.Random) -> str:
    """The clock is put forward; the next time it is put back."""
    if system.clock.missing:
        raise NoVictimError(f"the clock cannot be stepped: {system.clock.missing}")
    seconds = -system.clock.offset or system.step_seconds
    system.clock.step(seconds)
    return f"{seconds:+d} s"


def data_changed(system: System, chance: random.Random) -> str:
    """A document and questions come while a run is at work."""
    run = _await_work(system)
    time.sleep(chance.uniform(0.0, 10.0))
    system.add_document(chance.randrange(10**6))
    return f"run {run[:8]}"


FAULTS: Mapping[str, Callable[[System, random.Random], str]] = {
    "kill schedule": kill_schedule,
    "kill flow": kill_flow,
    "kill dvc": kill_dvc,
    "kill stage": kill_stage,
    "kill Prefect server": kill_prefect,
    "kill MLflow server": kill_mlflow,
    "kill ragloop up": kill_up,
    "full disk": full_disk,
    "MLflow locked": mlflow_locked,
    "Prefect locked": prefect_locked,
    "MLflow gone": mlflow_gone,
    "Prefect gone": prefect_gone,
    "index gone": index_gone,
    "clock stepped": clock_stepped,
    "data changed": data_changed,
}


def planned(seed: int) -> Iterator[str]:
    """Kinds of faults without end: every kind once in random order, then again in another."""
    chance = random.Random(seed)
    while True:
        yield from chance.sample(sorted(FAULTS), len(FAULTS))


def inject(system: System, kind: str, chance: random.Random) -> Fault:
    """Does it, and says what was hit."""
    fault = Fault(kind, time.monotonic())
    try:
        working = system.working()
        fault.run_id = working[0] if working else ""
        fault.target = FAULTS[kind](system, chance)
    except NoVictimError as missing:
        fault.skipped = str(missing)
    fault.ended = time.monotonic()
    return fault


def _kill(system: System, chance: random.Random, *words: str) -> str:
    """One of the programs of these words, at some moment of its work."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if system.programs(*words):
            time.sleep(chance.uniform(0.0, 3.0))
            found = system.programs(*words)
            if found:
                spoken = _spoken(found[0])
                kill(found[0])
                return spoken
        time.sleep(0.1)
    raise NoVictimError(f"no {' '.join(words)} was at work")


def _spoken(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[2:6])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "ended by itself"


def _await_work(system: System) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        working = system.working()
        if working:
            return working[0]
        time.sleep(0.2)
    raise NoVictimError("no run came to work")


def _hold(system: System, chance: random.Random) -> str:
    seconds = chance.uniform(*system.held_seconds)
    time.sleep(seconds)
    return f"{seconds:.0f} s"


def _hold_database(system: System, store: Path, chance: random.Random) -> str:
    _await_work(system)
    database = sqlite3.connect(store, timeout=30, isolation_level=None)
    try:
        database.execute("begin exclusive")
        return _hold(system, chance)
    finally:
        database.close()


def _hide(system: System, path: Path, chance: random.Random) -> str:
    _await_work(system)
    with _hidden(path) as replaced:
        held = _hold(system, chance)
    return f"{held}, another was made meanwhile" if replaced else held


@contextmanager
def _hidden(path: Path) -> Iterator[list[Path]]:
    """Away for the block; what was made in its place goes, and is named in the list."""
    replaced: list[Path] = []
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    try:
        yield replaced
    finally:
        if path.is_dir():
            replaced.append(path)
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():
            replaced.append(path)
        away.replace(path)
