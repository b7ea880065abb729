"""What a run costs beyond the work of its stages, in wall time and CPU time, and where that goes.

    python benchmarks/overhead.py             # the toy project: first run, then a run without work
    python benchmarks/overhead.py --demo      # a clone of this repository with its demo corpus
    python benchmarks/overhead.py --served    # and scheduled runs without work, under `ragloop up`

Inside a stage is the time of its own function less the imports that it makes, since libraries are
imported where they are used; imports and starts of processes are overhead. Each Python process
of the run writes down its imports (a `sitecustomize` on PYTHONPATH sees them); the rest are times
that stages write themselves (`.ragloop/stage_times/`) and those of tasks in Prefect's database.
CPU seconds are user and system time of all processes: on a busy machine they say more than wall
time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

#: Sees every outermost import of a process; what takes under a millisecond is left out.
WATCH_IMPORTS = """
import atexit, builtins, importlib, json, os, sys, threading, time

_inside, _spans = threading.local(), []

def _watched(load):
    def timed(name, *rest, **more):
        if getattr(_inside, "yes", False) or name in sys.modules and not (rest[2:3] or [None])[0]:
            return load(name, *rest, **more)
        _inside.yes, began, cpu = True, time.time(), time.thread_time()
        try:
            return load(name, *rest, **more)
        finally:
            _inside.yes, ended = False, time.time()
            if ended - began > 0.001:
                _spans.append((began, ended, time.thread_time() - cpu))
    return timed

def _write():
    spent = os.times()
    path = os.path.join(os.environ["IMPORT_TIMES"], f"{os.getpid()}.json")
    with open(path, "w") as file:
        json.dump({"command": sys.argv, "spans": _spans, "cpu": sum(spent[:2])}, file)

builtins.__import__ = _watched(builtins.__import__)
importlib.import_module = _watched(importlib.import_module)
atexit.register(_write)
"""
_SCHEDULED_RUNS = 3
_INTERVAL_SECONDS = 40
_MOST_SECONDS = 900.0
#: The program that Prefect's runner starts for a run.
_RUN_OF_PREFECT = "prefect/engine.py"
_TIMES_OF_A_RUN = ("expected_start_time", "start_time", "end_time")

Span = tuple[float, float, float]


@dataclass(frozen=True)
class Measured:
    """A run: wall and CPU seconds, seconds by stage inside its function, imports there, tasks.

    `programs` is the CPU time by program; what no Python process wrote down is `other`: servers,
    which are stopped from outside, git, and the ends of processes.
    """

    wall: float
    cpu: float
    programs: Mapping[str, float]
    inside: Mapping[str, float]
    inside_cpu: Mapping[str, float]
    imports: Mapping[str, float]
    tasks: Mapping[str, float]
    before_flow: float

    def show(self, title: str) -> None:
        """A line for each part."""
        work, work_cpu = sum(self.inside.values()), sum(self.inside_cpu.values())
        stages = sum(self.tasks.get(name, 0.0) for name in self.inside)
        print(f"{title}: {self.wall:.1f} s wall, {work:.1f} s inside the stages' functions")
        overhead = self.wall - work
        limit = max(30.0, 0.05 * self.wall)
        print(
            f"  overhead {overhead:.1f} s ({100 * overhead / self.wall:.1f} %); the limit is "
            f"{limit:.1f} s"
        )
        print(
            f"  CPU: {self.cpu:.1f} s, {work_cpu:.1f} s inside; overhead "
            f"{self.cpu - work_cpu:.1f} s"
        )
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.programs.items())
        print(f"    {told}")
        imported = sum(self.imports.values())
        print(
            f"    {self.before_flow:6.1f} s  from the command to the flow (imports, stores, server)"
        )
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.imports.items())
        print(f"    {imported:6.1f} s  imports inside the stages' functions ({told})")
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
    parser.add_argument("--served", action="store_true", help="scheduled runs on a server too")
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
        if arguments.served:
            measure_scheduled(project, watching)


def measure(project: Path, watching: Path, *arguments: str) -> Measured:
    """Runs a command and reads what its processes left."""
    times = Path(tempfile.mkdtemp(dir=watching))
    stage_times = project / ".ragloop" / "stage_times"
    for path in stage_times.glob("*.json"):
        path.unlink()
    began = time.time()
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=project,
        env=watched_environment(watching, times),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.time() - began
    assert process.returncode == 0, f"ragloop {' '.join(arguments)} failed"
    found = [json.loads(path.read_text()) for path in times.glob("*.json")]
    own = {path.stem: json.loads(path.read_text()) for path in sorted(stage_times.glob("*.json"))}
    of_stages: list[Span] = [
        tuple(span)
        for process in found
        if Path(process["command"][0]).parent.name == "rag"
        for span in process["spans"]
    ]
    assert any(process["spans"] for process in found), "no process has written its imports"
    imports, inside, inside_cpu = {}, {}, {}
    for name, at in own.items():
        within = [span for span in of_stages if at["began"] <= span[0] and span[1] <= at["ended"]]
        imports[name] = sum(ended - start for start, ended, _ in within)
        inside[name] = at["ended"] - at["began"] - imports[name]
        inside_cpu[name] = at["cpu_seconds"] - sum(cpu for _, _, cpu in within)
    tasks, flow_began = tasks_since(project, began)
    cpu = usage.ru_utime + usage.ru_stime
    programs: Counter[str] = Counter()
    for process in found:
        programs[program_of(process["command"])] += process["cpu"]
    return Measured(
        wall,
        cpu,
        {**programs, "other": cpu - programs.total()},
        inside,
        inside_cpu,
        imports,
        tasks,
        flow_began - began,
    )


def program_of(command: Sequence[str]) -> str:
    """`rag` of `.../rag/__main__.py embed`: which of the programs of a run this is."""
    return Path(command[0]).parent.name


def watched_environment(watching: Path, times: Path) -> dict[str, str]:
    """The environment of processes that write down their imports below `times`."""
    return {**os.environ, "PYTHONPATH": str(watching), "IMPORT_TIMES": str(times)}


def measure_scheduled(project: Path, watching: Path) -> None:
    """Serves the project, its schedule at short intervals, and prints what runs without work take.

    The first one starts with cold caches of the machine, and is shown like the others.
    """
    from flows import manual, server
    from rag.artifacts import Artifacts

    ports = {name: server.free_port() for name in ("prefect", "mlflow")}
    changes = [f"schedule.{name}_port={port}" for name, port in ports.items()]
    interval = f"schedule.interval_seconds={_INTERVAL_SECONDS}"
    manual.write_changes(Artifacts(project), [interval, *changes])
    times = Path(tempfile.mkdtemp(dir=watching))
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up"],
        cwd=project,
        env=watched_environment(watching, times),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as served:
        began = time.time()
        try:
            while len(runs := scheduled_since(project, began)) < _SCHEDULED_RUNS:
                assert served.poll() is None, "ragloop up has ended"
                assert time.time() < began + _MOST_SECONDS, "the scheduled runs do not end"
                time.sleep(1.0)
        finally:
            served.send_signal(signal.SIGINT)
    print("scheduled runs without work, on a running server:")
    for due, start, end, state in runs:
        print(
            f"  {end - due:5.1f} s wall from tick to end, {end - start:.1f} s of them in the flow "
            f"({state})"
        )
    found = [json.loads(path.read_text()) for path in times.glob("*.json")]
    spent = [process["cpu"] for process in found if process["command"][0].endswith(_RUN_OF_PREFECT)]
    print(f"  CPU of their processes: {', '.join(f'{seconds:.1f} s' for seconds in spent)}")


def scheduled_since(project: Path, began: float) -> list[tuple[float, float, float, str]]:
    """Scheduled runs that have ended: when each was due, began and ended, and as what."""
    seconds = [f"(julianday({name}) - 2440587.5) * 86400" for name in _TIMES_OF_A_RUN]
    with prefect_database(project) as connection:
        return connection.execute(
            f"select {', '.join(seconds)}, state_name from flow_run where auto_scheduled = 1 "
            "and end_time is not null and start_time is not null order by start_time"
        ).fetchall()


def tasks_since(project: Path, began: float) -> tuple[dict[str, float], float]:
    """Seconds of each task of the newest flow run, and when that run began."""
    with prefect_database(project) as connection:
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


def prefect_database(project: Path) -> sqlite3.Connection:
    """Prefect's own database, read only."""
    database = project / ".ragloop" / "prefect" / "prefect.db"
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True)


if __name__ == "__main__":
    main()
