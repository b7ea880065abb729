"""What a run costs beyond the work of its stages: wall time, and where the rest of it goes.

    python benchmarks/overhead.py             # the toy project: first run, then a run without work
    python benchmarks/overhead.py --demo      # a clone of this repository with its demo corpus

Inside a stage is the time of its own function less the imports that it makes, since libraries are
imported where they are used; imports and starts of processes are overhead. Each Python process
of the run writes down its imports (a `sitecustomize` on PYTHONPATH sees them); the rest are times
that stages write themselves (`.ragloop/stage_times/`) and those of tasks in Prefect's database.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

#: Sees every outermost import of a process; what takes under a millisecond is left out.
WATCH_IMPORTS = """
import atexit, builtins, json, os, sys, threading, time

_import, _inside, _spans = builtins.__import__, threading.local(), []

def _timed(name, *rest, **more):
    if getattr(_inside, "yes", False) or name in sys.modules and not (rest[2:3] or [None])[0]:
        return _import(name, *rest, **more)
    _inside.yes, began = True, time.time()
    try:
        return _import(name, *rest, **more)
    finally:
        _inside.yes, ended = False, time.time()
        if ended - began > 0.001:
            _spans.append((began, ended))

def _write():
    path = os.path.join(os.environ["IMPORT_TIMES"], f"{os.getpid()}.json")
    with open(path, "w") as file:
        json.dump({"command": sys.argv, "spans": _spans}, file)

builtins.__import__ = _timed
atexit.register(_write)
"""


@dataclass(frozen=True)
class Measured:
    """A run: its wall time, seconds by stage inside its function, imports there, tasks' seconds."""

    wall: float
    inside: dict[str, float]
    imports: dict[str, float]
    tasks: dict[str, float]
    before_flow: float

    def show(self, title: str) -> None:
        """A line for each part."""
        work = sum(self.inside.values())
        stages = sum(self.tasks.get(name, 0.0) for name in self.inside)
        print(f"{title}: {self.wall:.1f} s wall, {work:.1f} s inside the stages' functions")
        overhead = self.wall - work
        limit = max(30.0, 0.05 * self.wall)
        print(f"  overhead {overhead:.1f} s; the limit is {limit:.1f} s")
        imported = sum(self.imports.values())
        print(
            f"    {self.before_flow:6.1f} s  from the command to the flow (imports, stores, server)"
        )
        print(f"    {imported:6.1f} s  imports inside the stages' functions")
        started = stages - work - imported
        if stages:
            print(f"    {started:6.1f} s  processes of the stages, DVC and Prefect around them")
        for name, seconds in self.tasks.items():
            if name not in self.inside:
                print(f"    {seconds:6.1f} s  {name}")
        rest = self.wall - self.before_flow - sum(self.tasks.values())
        print(f"    {rest:6.1f} s  between the tasks, and the end of the run")


def main() -> None:
    parser = argparse.ArgumentParser(description="The overhead of a run.")
    parser.add_argument("--demo", action="store_true", help="the demo corpus instead of the toy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragloop-overhead-") as folder:
        project = Path(folder) / "project"
        if arguments.demo:
            subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
        else:
            from tests.toy import make_toy_project

            make_toy_project(project)
        watching = Path(folder) / "watch"
        watching.mkdir()
        (watching / "sitecustomize.py").write_text(WATCH_IMPORTS, encoding="utf-8")
        measure(project, watching, "run").show("first run")
        measure(project, watching, "run").show("nothing to do")


def measure(project: Path, watching: Path, *arguments: str) -> Measured:
    """Runs a command and reads what its processes left."""
    times = Path(tempfile.mkdtemp(dir=watching))
    environment = {**os.environ, "PYTHONPATH": str(watching), "IMPORT_TIMES": str(times)}
    stage_times = project / ".ragloop" / "stage_times"
    for path in stage_times.glob("*.json"):
        path.unlink()
    began = time.time()
    subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=project,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall = time.time() - began
    found = [json.loads(path.read_text()) for path in times.glob("*.json")]
    spans = [tuple(span) for process in found for span in process["spans"]]
    own = {path.stem: json.loads(path.read_text()) for path in sorted(stage_times.glob("*.json"))}
    of_stages = [
        tuple(span)
        for process in found
        if Path(process["command"][0]).parent.name == "rag"
        for span in process["spans"]
    ]
    imports = {name: overlap(at["began"], at["ended"], of_stages) for name, at in own.items()}
    inside = {name: at["ended"] - at["began"] - imports[name] for name, at in own.items()}
    assert spans, "no process has written its imports"
    tasks, flow_began = tasks_since(project, began)
    return Measured(wall, inside, imports, tasks, flow_began - began)


def overlap(began: float, ended: float, spans: Sequence[tuple[float, ...]]) -> float:
    """How many seconds of these spans lie between two times."""
    return sum(max(0.0, min(ended, span[1]) - max(began, span[0])) for span in spans)


def tasks_since(project: Path, began: float) -> tuple[dict[str, float], float]:
    """Seconds of each task of the newest flow run, and when that run began."""
    database = project / ".ragloop" / "prefect" / "prefect.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        flow = connection.execute(
            "select id, (julianday(start_time) - 2440587.5) * 86400 from flow_run "
            "order by start_time desc limit 1"
        ).fetchone()
        rows = connection.execute(
            "select name, (julianday(end_time) - julianday(start_time)) * 86400 "
            "from task_run where flow_run_id = ? order by start_time",
            (flow[0],),
        ).fetchall()
    assert flow[1] >= began - 1.0, "the newest flow run is an older one"
    return {name: seconds for name, seconds in rows if seconds is not None}, flow[1]


if __name__ == "__main__":
    main()
