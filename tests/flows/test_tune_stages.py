"""flows/tune_stages.py: what a trial leaves unchanged is shared; what it changes is made anew.

The stages are a stand-in package in the project's folder, so that each takes no time: it writes
down what it was given. The real ones run in tests/integration/test_tune.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.tune_stages import StudyStages, folder_hash, settings_read
from rag.artifacts import Artifacts
from rag.errors import DataError, RagError
from rag.params import Params, parse_params
from rag.records import QUESTIONS, Question, Split, read_questions, write_table
from tests.flows.programs import ROOT, are_gone, pids_in

#: Writes each output of a stage, and into the project's `ran` which stage ran.
STAGE = """
import os, shutil, sys, time
from pathlib import Path
import yaml
stage, root = sys.argv[1], Path(os.environ["RAGLOOP_ROOT"])
with open("ran", "a") as ran:
    ran.write(stage + "\\n")
params = yaml.safe_load((root / "params.yaml").read_text())
for out in yaml.safe_load(Path("dvc.yaml").read_text())["stages"][stage]["outs"]:
    path = root / out
    path.parent.mkdir(parents=True, exist_ok=True)
    if out.endswith("questions.parquet"):
        shutil.copy("questions.parquet", path)
    elif path.suffix:
        path.write_text("made")
    else:
        path.mkdir(exist_ok=True)
        (path / "weights.safetensors").write_text("heavy")
        (path / "facts.json").write_text("{}")
if params["reader"]["lora"]["rank"] == 13:
    print("reader: noise\\ntrain_reader: out of luck")
    sys.exit(1)
if stage == "train_reader" and params["reader"]["lora"]["rank"] == 99:
    Path("pids").write_text(str(os.getpid()))
    time.sleep(60)
"""

_SPLITS: tuple[Split, ...] = ("train", "dev", "test", "test")


#: These tests start a process for each stage.
integration = pytest.mark.integration


@pytest.fixture
def project(tmp_path: Path) -> Artifacts:
    (tmp_path / "rag").mkdir()
    (tmp_path / "rag" / "__init__.py").touch()
    (tmp_path / "rag" / "__main__.py").write_text(STAGE)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    rows = [
        Question(f"q{number}", "Who?", ("Ann",), "a.md", True, split, "en")
        for number, split in enumerate(_SPLITS)
    ]
    write_table(rows, QUESTIONS, tmp_path / "questions.parquet")
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "a.md").write_text("Ann.")
    return Artifacts(tmp_path)


def stages(project: Artifacts, last: str = "train_reader") -> StudyStages:
    found = StudyStages(project, project.state / "tune" / "study", last)
    found.take_data(folder_hash(project.raw))
    return found


def params(**sections: Any) -> Params:
    return parse_params(sections)


def ran(project: Artifacts) -> list[str]:
    path = project.root / "ran"
    names = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def nothing(*_: object) -> None:
    return None


@integration
def test_only_what_a_trial_changes_is_made_again(project: Artifacts) -> None:
    made = stages(project)
    first = made.run(params(), nothing, nothing)
    assert ran(project) == [
        *("prepare", "chunk", "train_retriever", "embed", "retrieve", "train_reader"),
    ]
    assert made.run(params(), nothing, nothing) == first
    assert ran(project) == []
    made.run(params(reader={"lora": {"rank": 8}}), nothing, nothing)
    assert ran(project) == ["train_reader"]
    made.run(params(retrieve={"rrf_k": 30}), nothing, nothing)
    assert ran(project) == ["retrieve", "train_reader"]
    made.run(params(chunk={"max_chunk_tokens": 128}), nothing, nothing)
    assert ran(project) == ["chunk", "train_retriever", "embed", "retrieve", "train_reader"]
    # Another process, later: what is finished is found.
    stages(project).run(params(evaluate={"oracle": True}), nothing, nothing)
    assert ran(project) == []


@integration
def test_a_trial_of_a_retriever_ends_with_it(project: Artifacts) -> None:
    stages(project, "train_retriever").run(params(retriever={"mode": "query"}), nothing, nothing)
    assert ran(project) == ["prepare", "chunk", "train_retriever"]


@integration
def test_no_test_question_and_no_output_of_the_project_is_touched(project: Artifacts) -> None:
    artifacts = stages(project).run(params(), nothing, nothing)
    tables = list((project.state / "tune").rglob("questions.parquet"))
    assert tables
    for table in tables:
        assert {question.split for question in read_questions(table)} == {"train", "dev"}
    assert not list((project.state / "tune").rglob("rejects.jsonl"))
    assert [path.name for path in project.data.iterdir()] == ["raw"]
    kept = {path.name for path in artifacts.reader.iterdir()}
    assert kept == {"facts.json"}, "of a finished trial the weights are not kept"


def test_data_that_changes_later_is_not_seen(project: Artifacts) -> None:
    made = stages(project)
    (project.raw / "a.md").write_text("Ben.")
    made.take_data("of today")  # the study has its data already
    assert (made.folder / "raw" / "a.md").read_text() == "Ann."
    with pytest.raises(DataError, match="was changed while it was copied"):
        StudyStages(project, project.state / "other", "train_reader").take_data("of yesterday")
    assert not (project.state / "other" / "raw").exists()


@integration
def test_a_stage_that_fails_says_why_in_its_own_words(project: Artifacts) -> None:
    made = stages(project)
    made.run(params(), nothing, nothing)
    broken = params(reader={"lora": {"rank": 13}})
    with pytest.raises(RagError, match="stage train_reader failed: out of luck") as caught:
        made.run(broken, nothing, nothing)
    assert "(log: " in str(caught.value)
    assert list(made.folder.rglob("train_reader-*.new"))
    made.drop_unfinished(broken)
    assert not list(made.folder.rglob("*.new"))


@integration
def test_what_a_watcher_raises_stops_the_stage_and_its_process(project: Artifacts) -> None:
    made = stages(project)
    pids: list[int] = []

    def prune(artifacts: Artifacts) -> None:
        if (project.root / "pids").exists():
            pids.extend(pids_in(project.root))
            raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        made.run(params(reader={"lora": {"rank": 99}}), prune, nothing)
    assert are_gone(pids)
    assert not list(made.folder.glob("stages/train_reader-????????????????"))


def test_the_settings_of_a_study_are_those_that_its_stages_read() -> None:
    settings = params().model_dump(mode="json")
    read = settings_read(ROOT / "dvc.yaml", "train_reader", settings)
    assert {"seed", "prepare", "chunk", "retriever", "retrieve", "reader"} <= read.keys()
    assert not {"evaluate", "gate", "embed", "tune", "schedule"} & read.keys()
    assert json.dumps(read["chunk"]) == '{"max_chunk_tokens": 256, "overlap_sentences": 1}'
    assert "reader" not in settings_read(ROOT / "dvc.yaml", "train_retriever", settings)
