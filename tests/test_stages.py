"""The stage table, and the toy project through all of it: the same bytes, wherever it runs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params
from rag.stages import STAGES, run_stage
from tests.toy import ANSWER, fill_raw, make_toy_project, run_stages

ROOT = Path(__file__).resolve().parent.parent


def pipeline() -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    return stages


def test_the_names_and_their_order_are_those_of_dvc() -> None:
    assert [stage.name for stage in STAGES] == list(pipeline())
    assert all(item["cmd"] == f"python -m rag {name}" for name, item in pipeline().items())


def test_every_stage_says_in_a_line_what_it_does() -> None:
    for stage in STAGES:
        assert stage.summary.endswith(".")
        assert len(stage.summary) < 100


def test_an_unknown_stage_is_an_error_that_names_all(tmp_path: Path) -> None:
    with pytest.raises(RagError, match=r"no stage 'train'; .* prepare, chunk, .*evaluate"):
        run_stage("train", Params(), Artifacts(tmp_path))


def outputs(project: Path) -> dict[str, bytes]:
    """Every file below data/ that a stage wrote, by its path."""
    folders = [path for path in (project / "data").iterdir() if path.name not in ("demo", "raw")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in sorted(files)}


@pytest.mark.integration
def test_the_same_inputs_give_the_same_bytes_in_another_process_and_folder(
    finished_toy: Path, tmp_path: Path
) -> None:
    again = make_toy_project(tmp_path / "elsewhere" / "toy")
    fill_raw(again)
    run_stages(again, hash_seed=2)
    first, second = outputs(finished_toy), outputs(again)
    assert list(first) == list(second)
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.integration
def test_outputs_are_those_that_dvc_knows_and_name_no_place_of_this_machine(
    finished_toy: Path,
) -> None:
    found = outputs(finished_toy)
    known = [
        next(iter(out)) if isinstance(out, dict) else out
        for stage in pipeline().values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, [])
    ]
    assert [name for name in found if not name.startswith(tuple(known))] == []
    assert all((finished_toy / name).exists() for name in known)
    places = [str(finished_toy), str(ROOT), str(Path.home()), tempfile.gettempdir()]
    for name, content in found.items():
        assert [place for place in places if f"{place}/".encode() in content] == [], name


@pytest.mark.integration
def test_the_toy_reader_learns_what_the_untuned_one_does_not_know(finished_toy: Path) -> None:
    metrics = json.loads((finished_toy / "data" / "evaluate" / "metrics.json").read_bytes())
    systems = metrics["systems"]
    assert metrics["n_questions"] >= 24
    assert systems["tuned"]["f1"]["low"] > systems["zero_shot"]["f1"]["high"] + 5
    assert systems["tuned"]["f1"]["low"] > systems["closed_book"]["f1"]["high"] + 5
    assert systems["tuned"]["recall@5"]["value"] == 100.0
    assert ANSWER in (finished_toy / "data" / "evaluate" / "report.html").read_text("utf-8")


@pytest.mark.integration
def test_the_adapter_names_its_base_model_and_is_no_pickle(finished_toy: Path) -> None:
    reader = finished_toy / "data" / "models" / "reader"
    names = sorted(path.name for path in reader.rglob("*") if path.is_file())
    assert names == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "history.jsonl",
        "reader.json",
    ]
    config = json.loads((reader / "adapter" / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "./toy-model"
