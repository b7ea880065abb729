"""The second copy of the data: configured, pushed, fetched anew; and experiments of DVC."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import dvc, remote
from flows.dvc_config import read_config
from flows.experiments import experiment_name
from flows.snapshot import take_snapshot
from rag.artifacts import Artifacts
from rag.errors import DataError, ParamsError
from rag.params import Params, parse_params
from tests.flows.test_run_branch import git


def params_with(**data: Any) -> Params:
    return parse_params({"data": data})


def test_a_password_in_the_remote_is_refused_and_not_shown() -> None:
    with pytest.raises(ParamsError) as caught:
        params_with(remote="ssh://me:secret@host/data")
    assert "a password does not belong in params.yaml" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_a_remote_nothing_is_configured_or_pushed(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    remote.configure(artifacts, params_with())
    assert not remote.is_behind(artifacts, params_with())
    assert not remote.is_behind(artifacts, params_with(remote="copies", push=False))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_relative_to_the_project(tmp_path: Path) -> None:
    assert remote.remote_url(tmp_path, "../copies") == str(tmp_path.parent / "copies")
    assert remote.remote_url(tmp_path, "s3://bucket/path") == "s3://bucket/path"


@pytest.mark.integration
def test_data_is_pushed_and_a_fresh_clone_fetches_it(dvc_project: Artifacts) -> None:
    root = dvc_project.root
    params = params_with(remote="copies")
    (dvc_project.raw / "documents").mkdir(parents=True)
    (dvc_project.raw / "documents" / "a.md").write_text("A ferry.\n")
    dvc_project.state.mkdir()
    snapshot = take_snapshot(dvc_project)
    dvc.reproduce("work", dvc_project)

    remote.configure(dvc_project, params)
    written = (root / ".dvc" / "config.local").stat().st_mtime_ns
    remote.configure(dvc_project, params)
    assert (root / ".dvc" / "config.local").stat().st_mtime_ns == written, "once is enough"
    assert read_config(root)["core"]["remote"] == "ragloop"

    (root / "copies").write_text("a file where a folder should be")
    with pytest.raises(ConnectionError, match="dvc push failed"):
        remote.push(dvc_project, params)
    assert remote.is_behind(dvc_project, params)
    (root / "copies").unlink()
    assert "3 files pushed" in remote.push(dvc_project, params)
    assert not remote.is_behind(dvc_project, params)
    assert remote.is_behind(dvc_project, params_with(remote="elsewhere"))

    for path in (dvc_project.raw, root / ".dvc" / "cache"):
        shutil.rmtree(path)
    taken = take_snapshot(dvc_project)
    assert (taken.data_hash, taken.detail) == (snapshot.data_hash, "fetched from the remote")
    assert (dvc_project.raw / "documents" / "a.md").read_text() == "A ferry.\n"

    for path in (dvc_project.raw, root / ".dvc" / "cache", root / "copies"):
        shutil.rmtree(path)
    with pytest.raises(DataError, match="cannot be fetched") as caught:
        take_snapshot(dvc_project)
    assert "data.remote" in caught.value.hint


#: Writes what it sees of DVC's experiments beside its output.
STAGE = """
import json, os
from pathlib import Path
seen = {key: value for key, value in os.environ.items() if key.startswith("DVC_")}
Path(os.environ["SEEN"], f"{seen.get('DVC_EXP_NAME', 'none')}.json").write_text(json.dumps(seen))
Path("out.txt").write_text(Path("params.yaml").read_text())
"""


@pytest.mark.integration
def test_experiments_are_told_apart_by_what_they_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, seen = tmp_path / "project", tmp_path / "seen"
    for folder in (root, seen):
        folder.mkdir()
    monkeypatch.setenv("SEEN", str(seen))
    stage = {"cmd": "python work.py", "deps": ["work.py"], "params": ["x"], "outs": ["out.txt"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"work": stage}}))
    (root / "params.yaml").write_text("x: 1\n")
    (root / "work.py").write_text(STAGE)
    (root / ".gitignore").write_text("/out.txt\n")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@example.com")
    run_dvc(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=Start")
    head = git(root, "rev-parse", "HEAD")
    assert experiment_name(root) is None
    for value in ("2", "3"):
        run_dvc(root, "exp", "run", "--quiet", "-S", f"x={value}", "--name", f"x-{value}")
        assert experiment_name(root) == f"x-{value}"

    stage_saw = json.loads((seen / "x-2.json").read_text())
    assert stage_saw["DVC_EXP_NAME"] == "x-2"
    assert stage_saw["DVC_EXP_BASELINE_REV"] == head
    run_dvc(root, "exp", "apply", "--quiet", "x-2")
    assert (root / "params.yaml").read_text() == "x: 2\n"
    assert experiment_name(root) == "x-2"
    (root / "params.yaml").write_text("x: 4\n")
    assert experiment_name(root) is None
    monkeypatch.setenv("DVC_EXP_NAME", "named-by-dvc")
    assert experiment_name(root) == "named-by-dvc"


def run_dvc(root: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    subprocess.run(command, cwd=root, check=True, env={**os.environ}, capture_output=True)
