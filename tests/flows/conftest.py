"""A tiny DVC project of one stage, and an environment in which nothing calls home."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import cli, settings
from rag.artifacts import Artifacts
from tests.flows.programs import set_params

#: The stage prints two lines, waits for as long as params say, and writes `x` to a file.
STAGE = """
import os, subprocess, sys, time
from pathlib import Path
import yaml
params = yaml.safe_load(Path("params.yaml").read_text())
print("working", flush=True)
progress = Path(os.environ["RAGLOOP_PROGRESS_FILE"])
progress.write_text('{"label": "work", "done": 1, "total": 4}')
if params["fail"]:
    print("work: first problem\\nwork: second problem\\nwhat to do", file=sys.stderr)
    sys.exit(params["fail"])
if params["seconds"]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    Path("pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(params["seconds"])
Path("out.txt").write_text(str(params["x"]))
"""


@pytest.fixture(autouse=True)
def quiet_environment() -> Iterator[None]:
    """What `settings.silence` sets, this Python first on PATH; taken back after the test."""
    before = dict(os.environ)
    settings.silence()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    yield
    os.environ.clear()
    os.environ.update(before)


@dataclass(frozen=True)
class Done:
    """What a command line left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return self.err.splitlines()


@pytest.fixture
def ragloop_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Runs the command line in this process: `ragloop_here(folder, "run", "--force")`."""

    def run(folder: Path, *arguments: str) -> Done:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["ragloop", *arguments])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = int(left.code or 0)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture
def dvc_project(tmp_path: Path) -> Artifacts:
    """A git and DVC repository with one stage, `work`."""
    (tmp_path / "work.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  work:\n    cmd: python work.py\n"
        "    deps: [work.py]\n    params: [x, fail, seconds]\n    outs: [out.txt]\n"
    )
    set_params(tmp_path, x=1)
    (tmp_path / ".gitignore").write_text("/.ragloop/\n/out.txt\n/pids\n/data/raw\n")
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    return Artifacts(tmp_path)
