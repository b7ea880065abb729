"""What has to exist before anything runs: `ragloop init`, which every command calls.

Several processes that first touch a fresh store at once break its migration, and the store stays
broken. So one process makes all stores while the others wait, and a stamp says that it is done.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path

from flows import dvc
from rag.artifacts import Artifacts
from rag.errors import InputError, RagError
from rag.params import Params
from rag.release import ledger, store
from rag.release.redaction import without_credentials

_STAMP = "stores.json"
_LOCK = "stores.lock"


def initialise(artifacts: Artifacts, params: Params) -> list[str]:
    """Makes and migrates whatever is missing; says what was done, nothing when all is in place.

    InputError where the project's folder cannot be used: no git repository, no params.yaml.
    """
    _refuse_lost(artifacts, params)
    if _is_current(artifacts, params):
        return []
    below_git_root = _check_git(artifacts.root)
    artifacts.state.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(artifacts.state / _LOCK):
        if _is_current(artifacts, params):
            return []
        done = []
        if not (artifacts.root / ".dvc").is_dir():
            dvc.initialise(artifacts.root, below_git_root=below_git_root)
            done.append("DVC repository made in .dvc")
        uri = store.tracking_uri(artifacts, params)
        # Two databases of two libraries, which know nothing of each other: both at once.
        with _prefect_migration() if _owns_prefect_database() else nullcontext():
            store.initialise(uri)
        done.append(f"MLflow store ready: {without_credentials(uri)}")
        if _owns_prefect_database():
            done.append(f"Prefect store ready: {_prefect_database()}")
        stamp = artifacts.state / _STAMP
        stamp.write_text(json.dumps(_expected(artifacts, params), indent=2), encoding="utf-8")
    return done


def _is_current(artifacts: Artifacts, params: Params) -> bool:
    try:
        stamp = json.loads((artifacts.state / _STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    uri = store.tracking_uri(artifacts, params)
    files = [artifacts.root / ".dvc" / "config"]
    if uri.startswith(store.SQLITE):
        files.append(Path(uri.removeprefix(store.SQLITE)))
    if _owns_prefect_database():
        files.append(_prefect_database())
    return stamp == _expected(artifacts, params) and all(path.is_file() for path in files)


def _refuse_lost(artifacts: Artifacts, params: Params) -> None:
    """RagError for a registry whose file is away while the ledger tells of what it holds.

    A volume may come back. An empty store in its place would have no champion: whatever is trained
    next would be promoted without being compared with what is live.
    """
    uri = store.tracking_uri(artifacts, params)
    if not uri.startswith(store.SQLITE):
        return
    path = Path(uri.removeprefix(store.SQLITE))
    # SQLite makes a file of no bytes for whoever asks a database that is away.
    if path.is_file() and path.stat().st_size:
        return
    if any(row.get("version") for row in ledger.read(artifacts.ledger)):
        raise RagError(
            f"MLflow's store {path} is gone, and {artifacts.ledger.name} tells of releases in it: "
            f"put it back; to begin anew without them, move {artifacts.ledger} away"
        )


def _expected(artifacts: Artifacts, params: Params) -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("mlflow", "prefect")}
    return {
        **versions,
        "tracking": str(without_credentials(store.tracking_uri(artifacts, params))),
    }


def _check_git(root: Path) -> bool:
    """Whether the project lies below its repository's root; InputError without a repository."""
    hint = "run: git init && git add -A && git commit -m 'Start'"
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise InputError("git is not installed; DVC records data beside the code in git") from None
    if found.returncode != 0:
        said = found.stderr.strip().removeprefix("fatal: ")
        raise InputError(f"{root} is in no usable git repository ({said})", hint=hint)
    return Path(found.stdout.strip()).resolve() != root.resolve()


def _owns_prefect_database() -> bool:
    """Whether Prefect's data is a file of ours, and not on a server that the user named."""
    return not any(
        os.environ.get(name)
        for name in (
            "PREFECT_API_URL",
            "PREFECT_API_DATABASE_CONNECTION_URL",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        )
    )


def _prefect_database() -> Path:
    return Path(os.environ["PREFECT_HOME"]) / "prefect.db"


@contextmanager
def _prefect_migration() -> Iterator[None]:
    """Prefect's database is made while the block runs, and is there when it has ended."""
    database = _prefect_database()
    if not database.exists():
        # SQLite's journals of a file that was deleted make a new one unreadable.
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    # Leaving the block waits for the program, so that none is left in the middle of a migration.
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as program:
        yield
        printed, _ = program.communicate()
    if program.returncode != 0 or not database.is_file():
        said = printed.splitlines()
        reasons = [line for line in said if "Error" in line] or [f"exit code {program.returncode}"]
        raise RagError(f"Prefect's store {database} cannot be made: {reasons[-1].strip()}")


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
