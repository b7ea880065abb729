"""A toy project under `ragloop up`: made as cheap as it can be, started, looked at, changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.soak_clock import Clock
from flows import lock, manual, server
from rag.artifacts import Artifacts
from rag.corpus import import_corpus
from tests.toy import ANSWER, make_toy_project

#: Of the temporary file system while there is room; no more than is written is taken of memory.
ROOM_BYTES = 2_000_000_000
#: Which flow run a process executes, as Prefect's runner tells it.
_FLOW_RUN = "PREFECT__FLOW_RUN_ID"
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
#: A retraining costs its processes and their imports; hardly anything is computed. Two epochs make
#: a champion that `BETTER` beats.
CHEAP = (
    "evaluate.attribution=false",
    "evaluate.resamples=300",
    "gate.attribution=false",
    "gate.cost=null",
    "tracking.traces=0",
    "reader.training.epochs=2",
    "reader.training.evaluations=1",
    "schedule.max_lateness_minutes=3",
    "schedule.stage_timeout_minutes={default: 3}",
    "watch.cron=0 3 * * *",
    "release.keep=2",
    "release.keep_challengers=1",
    "up.check_seconds=2",
    "up.hang_seconds=40",
    "up.restart_minutes=1",
    "up.log_megabytes=1",
)
BETTER = "reader.training.epochs=6"


@dataclass
class System:
    """The project, its clock and its `ragloop up`; `small_disk` says whether its disk is ours."""

    folder: Path
    root: Path
    clock: Clock
    small_disk: bool
    no_small_disk: str = ""
    process: subprocess.Popen[bytes] | None = None
    restarts: list[str] = field(default_factory=list)
    #: What a fault holds or hides is given back after at least and at most so long.
    held_seconds: tuple[float, float] = (5.0, 20.0)
    #: The clock is put forward by so much, and back the next time.
    step_seconds: int = 90

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.root)

    @property
    def environment(self) -> dict[str, str]:
        """That of a user who has set nothing, with the project's clock."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        threads = {"OMP_NUM_THREADS": "1"}
        return {**kept, **threads, **self.clock.variables}

    def start(self) -> None:
        """`ragloop up`, as a service manager starts it."""
        command = self.clock.wrap([sys.executable, "-m", "flows.cli", "up"])
        with (self.folder / "up.out").open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=self.root, env=self.environment, stdout=out, stderr=out
            )

    def keep_up(self) -> None:
        """Starts `ragloop up` again where it has ended, and says why it did."""
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            lines = (self.folder / "up.out").read_text(errors="replace").splitlines()
            error = next((line for line in reversed(lines) if "error" in line.lower()), "")
            self.restarts.append(f"exit code {code} {error}".strip())
            self.start()

    def stop(self) -> int:
        """Ends `ragloop up` in good order; its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def ragloop(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the project."""
        return subprocess.run(
            self.clock.wrap([sys.executable, "-m", "flows.cli", *arguments]),
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def change(self, *changes: str) -> None:
        """Writes params as a user's editor does: at once."""
        text = manual.changed_text(self.artifacts, changes)
        temporary = self.root / "params.yaml.new"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.artifacts.params)

    def add_document(self, number: int) -> None:
        """A new ferry, and two questions about it, where the pipeline reads."""
        name = f"Ferry{number}"
        (self.artifacts.raw / "documents" / f"{name.lower()}.md").write_text(
            f"# {name}\n\nThe {name} sails from Ashby under {ANSWER}.\n", encoding="utf-8"
        )
        rows = [
            {
                "id": f"{name.lower()}-{i}",
                "question": text.format(name),
                "answers": [ANSWER],
                "answerable": True,
                "document": f"{name.lower()}.md",
            }
            for i, text in enumerate(("Who commands the {}?", "Under whom does the {} sail?"))
        ]
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        questions = self.artifacts.raw / "questions" / f"{name.lower()}.jsonl"
        questions.parent.mkdir(exist_ok=True)
        questions.write_text(lines, encoding="utf-8")

    def family(self) -> list[psutil.Process]:
        """Every process below `ragloop up`."""
        if self.process is None or self.process.poll() is not None:
            return []
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def programs(self, *words: str) -> list[psutil.Process]:
        """Processes of `ragloop up` that were started as `python WORDS...`; guards are not."""
        found = []
        for process in self.family():
            try:
                line = process.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if line[1 : 1 + len(words)] == list(words):
                found.append(process)
        return found

    def flow_processes(self) -> dict[str, psutil.Process]:
        """`{flow run: its process}` of those that live."""
        found: dict[str, psutil.Process] = {}
        for process in self.family():
            try:
                run = process.environ().get(_FLOW_RUN)
                if run and process.status() != psutil.STATUS_ZOMBIE:
                    found.setdefault(run.replace("-", ""), process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def working(self) -> tuple[str, psutil.Process] | None:
        """The flow run that holds the project's lock, and its process."""
        holder = lock.holder(self.artifacts.lock)
        if holder is None:
            return None
        for run, process in self.flow_processes().items():
            if process.pid == holder.pid:
                return run, process
        return None

    def query(self, store: Path, text: str) -> list[tuple[Any, ...]]:
        """Rows of a store, read beside whoever writes; sqlite3.Error where that cannot be."""
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=2) as database:
            try:
                return database.execute(text).fetchall()
            finally:
                database.rollback()

    @property
    def prefect_store(self) -> Path:
        return self.artifacts.state / "prefect" / "prefect.db"

    @property
    def mlflow_store(self) -> Path:
        return self.artifacts.state / "mlflow.db"

    def resize(self, bytes_: int) -> None:
        """Gives the project's disk another size."""
        subprocess.run(["mount", "-o", f"remount,size={bytes_}", str(self.root)], check=True)

    def remove(self) -> None:
        """Ends what is left and removes everything."""
        for process in self.family():
            process.kill()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.small_disk:
            subprocess.run(["umount", "--lazy", str(self.root)], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def make_system(folder: Path, *, interval_seconds: int) -> System:
    """The project, not started yet; on a disk of its own where this user may mount one."""
    root = folder / "toy"
    root.mkdir(parents=True)
    reason = _mount(root)
    options = (
        f"schedule.interval_seconds={interval_seconds}",
        f"schedule.prefect_port={server.free_port()}",
        f"schedule.mlflow_port={server.free_port()}",
    )
    make_toy_project(root, overrides=[*CHEAP, *options])
    artifacts = Artifacts(root)
    import_corpus(str(artifacts.demo), artifacts.raw, replace=False)
    return System(folder, root, Clock(folder), small_disk=not reason, no_small_disk=reason)


def wait_until_served(system: System, *, seconds: float = 180) -> None:
    """Returns once `ragloop up` says that it serves; TimeoutError where it never does."""
    deadline = time.monotonic() + seconds
    record = server.up_record(system.artifacts)
    while not record.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("ragloop up does not start; see up.out")
        system.keep_up()
        time.sleep(0.5)


def kill(process: psutil.Process) -> None:
    """SIGKILL, unless it has ended meanwhile."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def _mount(folder: Path) -> str:
    """Why no file system can be mounted here; empty where it was."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "ragloop-soak", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no mount command"
    return "" if done.returncode == 0 else done.stderr.strip()


def used_bytes(folder: Path) -> int:
    """What files below a folder take; those that vanish meanwhile do not count."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def sizes(root: Path, names: Sequence[str]) -> dict[str, int]:
    """What each of these files and folders takes."""
    found = {}
    for name in names:
        path = root / name
        found[name] = used_bytes(path) if path.is_dir() else _size(path)
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
