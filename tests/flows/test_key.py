"""The content key: the same for the same inputs, another one for whatever changes the result."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.key import code_hash, concluded_row, content_key
from rag.artifacts import Artifacts
from rag.params import Params, load_params

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"


@pytest.fixture
def project(tmp_path: Path) -> Artifacts:
    """The project's code and pipeline, without anything else."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "rag", tmp_path / "rag", ignore=ignored)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return Artifacts(tmp_path)


def params(*changes: str) -> Params:
    return load_params(PARAMS, changes)


def test_the_same_inputs_give_the_same_key_wherever_they_lie(
    project: Artifacts, tmp_path: Path
) -> None:
    key = content_key("data", params(), project)
    assert key == content_key("data", params(), project)
    assert len(key) == 32
    assert key.isalnum()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(project.root / "rag", elsewhere / "rag")
    shutil.copy(project.root / "dvc.yaml", elsewhere)
    assert key == content_key("data", params(), Artifacts(elsewhere))


@pytest.mark.parametrize(
    "change", ["reader.lora.rank=8", "gate.min_effect=1.0", "seed=14", "index.upsert_batch=7"]
)
def test_params_that_matter_change_it(project: Artifacts, change: str) -> None:
    assert content_key("data", params(change), project) != content_key("data", params(), project)


@pytest.mark.parametrize(
    "change",
    [
        "schedule.cron='0 4 * * *'",
        "schedule.mlflow_port=5001",
        "tracking.experiment=x",
        "data.remote=copies",
    ],
)
def test_when_and_where_do_not(project: Artifacts, change: str) -> None:
    assert content_key("data", params(change), project) == content_key("data", params(), project)


def test_data_code_and_pipeline_change_it(project: Artifacts) -> None:
    keys = {content_key("data", params(), project), content_key("other", params(), project)}
    (project.root / "rag" / "stages.py").write_text("changed = True\n")
    keys.add(content_key("data", params(), project))
    (project.root / "dvc.yaml").write_text("stages: {}\n")
    keys.add(content_key("data", params(), project))
    assert len(keys) == 4


def test_local_weights_change_it_by_content(project: Artifacts, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"one")
    chosen = params(f"reader.model={model}")
    before = content_key("data", chosen, project)
    (model / "model.safetensors").write_bytes(b"another")
    assert content_key("data", chosen, project) != before


def test_compiled_files_are_no_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = code_hash(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert code_hash(tmp_path) == before
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert code_hash(tmp_path) != before


def test_only_the_newest_concluded_row_counts() -> None:
    rows = [
        {"key": "a", "outcome": "PROMOTE"},
        {"key": "b", "outcome": "REJECT"},
        {"key": "c", "outcome": "ERROR"},
    ]
    assert concluded_row(rows, "b") == rows[1]
    assert concluded_row(rows, "a") is None, "something else has been concluded since"
    assert concluded_row(rows, "c") is None, "an error is made again"
    assert concluded_row([], "a") is None
