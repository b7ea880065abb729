"""The MLflow store: where it is, quiet, without telemetry, and migrated by one process only."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.release.redaction import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from rag.params import Params

SQLITE = "sqlite:///"
#: Tag of every run of ours: whose it is. See `project_id`.
PROJECT = "ragloop.project"
#: What MLflow shows of the experiment: runs and models first, not traces.
_VIEW = {"mlflow.experimentKind": "custom_model_development"}

#: Set before MLflow is imported, unless the user has chosen otherwise.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # A model holds what we put into it: no variable names, no project files found by chance.
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
}

#: Characters of a library's own message; the rest is its inner workings.
_SHOWN = 240


def data_folder(artifacts: Artifacts, params: Params) -> Path:
    """Where the servers of this project keep their data: `up.data_folder`, or the state folder."""
    if params.up.data_folder is None:
        return artifacts.state.resolve()
    return (artifacts.root / Path(params.up.data_folder).expanduser()).resolve()


def tracking_uri(artifacts: Artifacts, params: Params) -> str:
    """`tracking.uri`, or SQLite in the data folder."""
    return params.tracking.uri or f"{SQLITE}{data_folder(artifacts, params) / 'mlflow.db'}"


def artifact_folder(artifacts: Artifacts, params: Params) -> Path:
    """Where a SQLite store keeps the files of its runs and models."""
    return data_folder(artifacts, params) / "mlartifacts"


def local_folder(location: str) -> Path | None:
    """The folder of a `file:` URI; None for artifacts that are somewhere else."""
    parts = urlsplit(location)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def project_id(artifacts: Artifacts) -> str:
    """A name of this project that no other has: a store may be shared, what is tidied is our own.

    Made at the first call; it lies beside the ledger.
    """
    path = artifacts.state / "project"
    try:
        known = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        known = ""
    if known:
        return known
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(uuid.uuid4().hex, encoding="utf-8")
    with contextlib.suppress(FileExistsError):  # another process was first
        os.link(temporary, path)
    temporary.unlink()
    return path.read_text(encoding="utf-8").strip()


def configure(artifacts: Artifacts, params: Params) -> str:
    """Points this process at the store, ready for use, and returns its URI."""
    uri = tracking_uri(artifacts, params)
    initialise(uri)
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    os.environ["MLFLOW_TRACKING_URI"] = uri  # MLflow sets it only for a URI that is new to it
    return uri


def initialise(uri: str) -> None:
    """Creates a SQLite store or brings it up to date, and checks that any store answers.

    Processes that call this at the same time wait for the first one: two migrations at once leave a
    store that stays broken.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not uri.startswith(SQLITE):
        _check(uri)
        return
    path = Path(uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        try:
            _check(uri)
        except ReleaseError as error:
            if "out-of-date database schema" not in str(error):
                raise
            _upgrade(uri)
            _check(uri)


def experiment_id(client: MlflowClient, artifacts: Artifacts, params: Params) -> str:
    """The experiment of all runs, created when there is none."""
    from mlflow.exceptions import MlflowException

    name = params.tracking.experiment
    for _ in range(2):
        found = client.get_experiment_by_name(name)
        if found and found.lifecycle_stage == "deleted":
            raise ReleaseError(
                f"the MLflow experiment {name!r} was deleted: restore it, or choose another "
                "tracking.experiment in params.yaml"
            )
        if found:
            return str(found.experiment_id)
        own_store = params.tracking.uri is None
        location = artifact_folder(artifacts, params).as_uri() if own_store else None
        try:
            return str(client.create_experiment(name, location, tags=_VIEW))
        except MlflowException as error:  # another process may have been first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise ReleaseError(f"the MLflow experiment {name!r} can be neither found nor created")


def _check(uri: str) -> None:
    """Opens the store, which creates the tables of a new one, and asks it one question."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        where = without_credentials(uri)
        reason = without_credentials(str(error)).partition("\n")[0][:_SHOWN]
        raise ReleaseError(
            f"the MLflow store at {where} does not answer: {reason}; "
            "check tracking.uri in params.yaml, then `ragloop doctor`"
        ) from None


def _upgrade(uri: str) -> None:
    """Migrates a store that an older MLflow wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", uri],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        detail = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ReleaseError(f"the MLflow store at {uri} cannot be migrated: {detail}")
