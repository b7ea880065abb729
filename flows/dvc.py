"""DVC as a program of its own: reproduce one stage, ask for the status, take a data snapshot.

DVC is the only writer of stage outputs. A second `dvc repro` at once fails instead of waiting, and
a killed one leaves its stage running; so the caller holds the project's lock and the program runs
below a guard that ends the whole process group.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import yaml

from flows import processes
from rag import progress
from rag.artifacts import Artifacts
from rag.errors import InputError, RagError

Result = Literal["Ran", "Cached"]

_DVC = (sys.executable, "-m", "dvc")
#: What DVC prints for a stage that is unchanged, or whose outputs it has from an earlier run.
_CACHED = re.compile(r"^Stage '[^']+' (didn't change, skipping|is cached - skipping run)")
_RUNNING = re.compile(r"^Running stage '[^']+':")
_FAILED = re.compile(r"failed to run: .*, exited with (-?\d+)$")
#: DVC's first line after a stage; before it, its echo of the command, and bars of libraries.
_AFTER = re.compile(r"^(Updating|Generating) lock file '")
_NOISE = re.compile(r"^> |\d%\||^WARNING: .* is empty\.$")
_REMEMBERED_LINES = 5000


@dataclass(frozen=True)
class StageRun:
    """What became of a stage: `Cached` when DVC had its outputs for these inputs already."""

    stage: str
    result: Result
    seconds: float


def _ignore(*_: object) -> None:
    return None


def reproduce(
    stage: str,
    artifacts: Artifacts,
    *,
    force: bool = False,
    on_line: Callable[[str], None] = _ignore,
    poll: Callable[[], None] = _ignore,
    timeout_seconds: float | None = None,
) -> StageRun:
    """Runs `dvc repro --single-item STAGE` in the project, or finds that nothing changed.

    `on_line` gets each line that the stage prints, `poll` is called every second; meanwhile
    `progress_file(artifacts)` tells how far the stage is. However the call is left, by an
    exception, a signal or the time limit, the whole process group has ended by then. Raises
    InputError where the stage says that its input is bad (exit code 2), else RagError.
    """
    command = [*_DVC, "repro", "--single-item", *(["--force"] if force else []), stage]
    path = log_file(artifacts, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    progress_file(artifacts).unlink(missing_ok=True)
    variables = {**os.environ, progress.VARIABLE: str(progress_file(artifacts))}
    started = time.monotonic()
    with path.open("w", encoding="utf-8") as kept:
        log = _StageLog(stage, kept, on_line)
        with processes.running(command, artifacts.root, variables=variables) as program:
            try:
                code = processes.follow(
                    program, on_line=log.add, poll=poll, timeout_seconds=timeout_seconds
                )
            except TimeoutError as error:
                raise RagError(
                    f"stage {stage}: {error}, the limit of schedule.stage_timeout_minutes; the "
                    f"next run goes on from its last checkpoint (log: {path})"
                ) from None
    if code != 0:
        raise log.failure(code, path)
    return StageRun(stage, "Cached" if log.is_cached else "Ran", time.monotonic() - started)


def log_file(artifacts: Artifacts, stage: str) -> Path:
    """Everything that the last run of a stage printed."""
    return artifacts.state / "logs" / f"{stage}.log"


def progress_file(artifacts: Artifacts) -> Path:
    """What the running stage says of its progress; see `rag.progress`."""
    return artifacts.state / "progress.json"


class _StageLog:
    """Tells the stage's own lines from those of DVC around it."""

    def __init__(self, stage: str, kept: TextIO, on_line: Callable[[str], None]) -> None:
        self.is_cached = False
        self._stage = stage
        self._kept = kept
        self._on_line = on_line
        self._is_running = False
        self._stage_code: int | None = None
        self._lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._errors: list[str] = []

    def add(self, line: str) -> None:
        self._kept.write(f"{line}\n")
        self._kept.flush()
        if _CACHED.match(line):
            self.is_cached = True
        elif _RUNNING.match(line):
            self._is_running = True
        elif line.startswith("ERROR: "):
            self._errors.append(line.removeprefix("ERROR: "))
            if found := _FAILED.search(line):
                self._stage_code = int(found.group(1))
        elif _AFTER.match(line):
            self._is_running = False
        elif self._is_running and line.strip() and not _NOISE.search(line):
            self._lines.append(line)
            self._on_line(line)

    def failure(self, code: int, path: Path) -> RagError:
        """The stage's own words where it failed, DVC's where DVC did."""
        if self._stage_code is None:
            reason = self._errors[-1] if self._errors else f"dvc ended with exit code {code}"
            return RagError(f"stage {self._stage}: {reason} (log: {path})")
        if self._stage_code < 0:
            name = signal.Signals(-self._stage_code).name
            memory = "; was memory short?" if name == "SIGKILL" else ""
            return RagError(f"stage {self._stage} was ended by {name}{memory} (log: {path})")
        mark = f"{self._stage}: "
        said = [line.removeprefix(mark) for line in self._lines if line.startswith(mark)]
        if self._stage_code == InputError.exit_code and said:
            last = self._lines[-1]
            return InputError(said, hint="" if last.startswith(mark) else last)
        reason = (said or [*self._lines] or [f"exit code {self._stage_code}"])[-1]
        return RagError(f"stage {self._stage} failed: {reason} (log: {path})")


def status(root: Path, *targets: str) -> dict[str, Any]:
    """What differs from dvc.lock and the .dvc files: empty when everything is in place."""
    return dict(json.loads(_run(root, "status", "--json", *targets)))


def add(root: Path, path: Path) -> None:
    """Records the content of a folder as it is now."""
    _run(root, "add", "--quiet", str(path.relative_to(root)))


def checkout(root: Path, target: str) -> None:
    """Puts back what DVC's cache has of a target; RagError when it does not have it."""
    _run(root, "checkout", "--quiet", target)


def pull(root: Path, target: str) -> None:
    """Fetches a target from the default remote and puts it in place; RagError where it cannot."""
    _run(root, "pull", "--quiet", target)


def update(root: Path, target: str) -> None:
    """Brings an import (`dvc import`, `dvc import-url`) to what its source holds now."""
    _run(root, "update", "--quiet", target)


def push(root: Path) -> str:
    """Copies what the checkout names to the default remote; returns DVC's own last words."""
    return (_run(root, "push").strip().splitlines() or ["nothing to push"])[-1]


def set_default_remote(root: Path, name: str, url: str) -> None:
    """Names the default remote in `.dvc/config.local`, which git ignores."""
    _run(root, "remote", "add", "--quiet", "--local", "--default", "--force", name, url)


def cache_folder(root: Path) -> Path:
    """Where DVC keeps this project's files."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        # The run cache lies above the folder of the files.
        return Path(repo.cache.legacy.path).resolve()


def set_cache(root: Path, folder: Path) -> None:
    """Makes a repository use this cache, by a setting that git does not see."""
    from dvc.config import Config

    with Config(str(root / ".dvc")).edit("local") as local:
        local.setdefault("cache", {})["dir"] = str(folder)


def recorded_hash(record: Path) -> str:
    """The content hash in a `.dvc` file."""
    tree = yaml.safe_load(record.read_text(encoding="utf-8"))
    return str(tree["outs"][0]["md5"])


def initialise(root: Path, *, below_git_root: bool) -> None:
    """Makes `.dvc`, with reports and the look for new versions off."""
    _run(root, "init", "--quiet", *(["--subdir"] if below_git_root else []))
    for option in ("core.analytics", "core.check_update"):
        _run(root, "config", option, "false")


def _run(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*_DVC, *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = said[-1].removeprefix("ERROR: ") if said else done.stderr.strip()[-200:]
        raise RagError(f"dvc {arguments[0]} failed: {reason or f'exit code {done.returncode}'}")
    return done.stdout
