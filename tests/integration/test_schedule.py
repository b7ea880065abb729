"""A refresh: other documents for the champion's models, while nothing is trained."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from flows import manual
from rag.artifacts import Artifacts
from tests.integration.conftest import Finished, Project

pytestmark = pytest.mark.integration


def reader_of(project: Project, version: str) -> set[str]:
    """The hashes of the reader's files in a version's bundle."""
    run_id = next(row["run_id"] for row in project.ledger() if row["version"] == version)
    folder = project.root / ".ragloop" / "mlartifacts"
    return {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
        and "data/models/reader" in path.as_posix()
        and _is_of(path, run_id, project)
    }


def _is_of(path: Path, run_id: str, project: Project) -> bool:
    models = project.mlflow(f"select model_id from logged_models where source_run_id = '{run_id}'")
    return any(model in path.parts for (model,) in models)


def state(project: Project) -> tuple[str, bytes]:
    """What git says of the checkout, and what DVC has written there."""
    status = subprocess.run(
        ["git", "status", "--porcelain"],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=True,
    )
    return status.stdout, (project.root / "dvc.lock").read_bytes()


def test_a_refresh_changes_the_index_and_no_model(project: Project, first_run: Finished) -> None:
    assert first_run.code == 0, first_run.err
    again = project.ragloop("refresh")
    assert again.code == 0, again.err
    assert "has an index of these documents: nothing to refresh" in again.out
    ((live,),) = project.mlflow(
        "select version from registered_model_aliases where alias='champion'"
    )

    # A toy answers in milliseconds, and a busy machine's clock decides about those.
    manual.write_changes(Artifacts(project.root), ["gate.cost=null"])
    document = project.root / "data" / "raw" / "documents" / "newboat.md"
    document.write_text("# Newboat\n\nThe Newboat sails from Ashby under Captain Marlow.\n")
    before = state(project)
    done = project.ragloop("refresh")
    assert done.code == 0, done.err
    assert state(project) == before, "the checkout is as it was"
    assert not {"train_retriever", "train_reader"} & set(done.steps())
    row = project.ledger()[-1]
    assert (row["kind"], row["outcome"]) == ("refresh", "PROMOTE")
    assert row["tags"]["models_of"] == str(live)
    assert row["tags"]["kind"] == "refresh"
    old, new = reader_of(project, str(live)), reader_of(project, str(row["version"]))
    assert old, "the bundle has a reader"
    assert new == old
    found = project.ragloop("search", "Newboat", "--json")
    assert "newboat.md" in found.out
