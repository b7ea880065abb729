"""The MLflow store: made by one process while others wait, and refused with a way out."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params, parse_params
from rag.release.store import initialise, tracking_uri

pytestmark = pytest.mark.integration


def test_the_default_store_is_in_the_state_folder(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, state_folder=tmp_path / "state")
    assert tracking_uri(artifacts, Params()) == f"sqlite:///{tmp_path}/state/mlflow.db"
    params = parse_params({"tracking": {"uri": "http://host:5000"}})
    assert tracking_uri(artifacts, params) == "http://host:5000"


def test_processes_that_start_at_once_do_not_break_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/new folder/mlflow.db"
    command = [
        sys.executable,
        "-c",
        f"from rag.release.store import initialise\ninitialise({uri!r})",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    starts = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in starts] == [0, 0]
    initialise(uri)
    with sqlite3.connect(tmp_path / "new folder" / "mlflow.db") as database:
        assert database.execute("select count(*) from alembic_version").fetchone() == (1,)


def test_a_store_that_cannot_be_opened_names_it_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, whatever its name may promise")
    with pytest.raises(ReleaseError, match="does not answer"):
        initialise(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ReleaseError) as caught:
        initialise("postgresql+nodriver://me:canary@localhost/x")
    assert "canary" not in str(caught.value)
    assert "tracking.uri" in str(caught.value)
