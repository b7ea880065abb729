"""A healthy installation in a folder: two releases, both stores migrated, data in DVC, a remote.

Built once a session; each fault is planted in a copy that lies in the same place, since MLflow's
store names its files by their absolute paths.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import yaml

from flows.doctor import site_of
from flows.doctor_checks.finding import Site
from flows.server import free_port
from rag.artifacts import Artifacts
from tests.releasing_project import in_a_process, make_releasing_project

REPOSITORY = Path(__file__).resolve().parent.parent
_STAGE = {
    "cmd": "mkdir -p data/notes && echo one > data/notes/b.txt && echo two > data/notes/a.txt",
    "outs": ["data/notes"],
}
#: Names of variables that say where servers are: a test has none.
_SERVERS = ("PREFECT_", "MLFLOW_", "RAGLOOP_")


def make_healthy_project(root: Path) -> Path:
    """An installation about which the doctor has nothing to say; returns its root."""
    artifacts, _ = make_releasing_project(root, keep=2, keep_challengers=0)
    tree = yaml.safe_load(artifacts.params.read_text())
    tree["schedule"] = {"prefect_port": free_port(), "mlflow_port": free_port()}
    artifacts.params.write_text(yaml.safe_dump(tree))
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"note": _STAGE}}))
    artifacts.raw.mkdir(parents=True)
    (artifacts.raw / "boats.md").write_text("The boat sails at noon.\n")
    remote = root / "remote"
    remote.mkdir()
    dvc = (sys.executable, "-m", "dvc")
    for command in (
        ("git", "config", "user.name", "toy"),
        ("git", "config", "user.email", "toy@example.com"),
        (sys.executable, "-m", "flows.cli", "init"),
        (*dvc, "remote", "add", "--quiet", "--default", "storage", str(remote)),
        (*dvc, "add", "--quiet", "data/raw"),
        (*dvc, "repro", "--quiet"),
        ("git", "add", "params.yaml", "dvc.yaml", ".dvc"),
        ("git", "commit", "--quiet", "--message=Toy"),
    ):
        done = subprocess.run(
            command, cwd=root, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    from tests.releasing_programs import release

    for colour in ("red", "blue"):
        in_a_process(release, root, colour)
    return root


def clean_environment() -> dict[str, str]:
    """This process's environment as of a user who has named no server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SERVERS)}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}


def site_at(root: Path, **variables: str) -> Site:
    """What the doctor is given there now."""
    return site_of(Artifacts(root), variables, datetime.now(UTC))


def copy_of(source: Path, target: Path) -> None:
    """A copy with times and holes as they are: an index is mostly holes."""
    subprocess.run(["cp", "--archive", str(source), str(target)], check=True)


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder below."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def restore(kept: Path, root: Path) -> None:
    """Makes `root` what `kept` is, and touches only what differs."""
    wanted, found = content(kept), content(root)
    for name in sorted(found.keys() - wanted.keys(), reverse=True):
        path = root / name
        path.rmdir() if path.is_dir() else path.unlink()
    for name in sorted(wanted):
        source, target = kept / name, root / name
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif found.get(name) != wanted[name]:
            shutil.copy2(source, target)
    for name in sorted(wanted, reverse=True):
        if (kept / name).is_dir():
            shutil.copystat(kept / name, root / name)


def follow_remedy(root: Path, remedy: str) -> None:
    """Types the command that a finding names; in a process of its own, see `in_a_process`."""
    import shlex

    from flows import cli
    from tests.releasing_project import opened

    opened(root)
    cli.app(shlex.split(remedy, comments=True)[1:], standalone_mode=False)
