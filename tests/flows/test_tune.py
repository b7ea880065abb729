"""flows/tune.py: workers, pruning, time limits and trials that go wrong.

The stages are a stand-in package, so that a trial takes no time: its reader is best at rank 64 and
its curve rises to the final value. Optuna, MLflow, locks and processes are the real ones.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from flows import tune, tune_study
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params, parse_params
from rag.search_space import search_space
from tests.flows.programs import ROOT, are_gone

pytestmark = pytest.mark.integration

STAGE = """
import json, os, sys, time
from pathlib import Path
stage, root = sys.argv[1], Path(os.environ["RAGLOOP_ROOT"])
if stage == "prepare":
    import shutil
    shutil.copytree("prepared", root / "data" / "prepare")
if stage == "train_reader":
    rank = int((root / "params.yaml").read_text().split("rank: ")[-1].split()[0])
    reader = root / "data" / "models" / "reader"
    reader.mkdir(parents=True)
    if rank == 3:
        print("train_reader: rank 3 is cursed")
        sys.exit(1)
    with (reader / "history.jsonl").open("w") as history:
        for share in (1, 2):
            row = {"step": 10 * share, "dev_f1": rank * share / 2}
            print(json.dumps(row), file=history, flush=True)
            if rank < 8:
                Path("slow").open("a").write(f"{os.getpid()} ")
                time.sleep(20)
    (reader / "reader.json").write_text(json.dumps({"dev": {"dev_f1": float(rank)}}))
"""


@pytest.fixture
def project(tmp_path: Path) -> Artifacts:
    from rag.records import QUESTIONS, write_table

    package = tmp_path / "rag"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAGE)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    write_table([], QUESTIONS, tmp_path / "prepared" / "questions.parquet")
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "a.md").write_text("Ann.")
    return Artifacts(tmp_path)


def params(ranks: list[int], **settings: Any) -> Params:
    """Its own rank is none of these, so that no trial is params.yaml as it is."""
    searched = {"space": {"reader.lora.rank": {"choices": ranks}}, "startup_trials": 99}
    return parse_params({"reader": {"lora": {"rank": 500}}, "tune": searched | settings})


def study_of(project: Artifacts, given: Params, result: dict[str, Any]) -> Any:
    return tune_study.open_study(result["study"], given, project.state / "optuna.db")


def test_a_trial_that_falls_behind_is_stopped_with_its_process(project: Artifacts) -> None:
    given = params([4, 32, 64], pruner_trials=2, workers=2)
    started = time.monotonic()
    study_space = search_space(given)
    result = tune.tune(project, given, trials=8)
    assert result["best"]["params"] == {"reader.lora.rank": 64}
    assert result["best"]["value"] == 64.0
    by_rank: dict[int, set[str]] = {}
    for row in result["rows"]:
        by_rank.setdefault(row["params"]["reader.lora.rank"], set()).add(row["state"])
    assert "complete" in by_rank[64]
    assert "pruned" in by_rank[4], "it could not have completed in the time"
    assert time.monotonic() - started < 60
    assert are_gone([int(pid) for pid in (project.root / "slow").read_text().split()])
    assert not list(project.state.rglob("*.new"))
    assert [row["trial"] for row in result["rows"]] == list(range(8))
    assert len(study_space) == 1


def test_time_is_up_and_the_next_start_goes_on(project: Artifacts) -> None:
    given = params([4, 5], pruner="none")
    with pytest.raises(RagError, match="no trial has completed; give it more time"):
        tune.tune(project, given, trials=1, timeout_minutes=0.05)
    name = tune.study_name(project, given, search_space(given), tune.folder_hash(project.raw))
    study = tune_study.open_study(name, given, project.state / "optuna.db")
    states = [item.state.name for item in study.trials]
    assert states == ["FAIL", "WAITING"]
    first, again = study.trials
    assert again.system_attrs["fixed_params"] == first.params
    assert are_gone([int(pid) for pid in (project.root / "slow").read_text().split()])


def test_trials_that_go_wrong_are_told_and_three_of_them_are_enough(project: Artifacts) -> None:
    with pytest.raises(RagError) as caught:
        tune.tune(project, params([3]), trials=10)
    text = str(caught.value)
    assert text.startswith("each of 3 trials went wrong, the last one so: stage train_reader")
    assert "rank 3 is cursed" in text
    result = tune.tune(project, params([3, 64]), trials=6)
    states = {row["params"]["reader.lora.rank"]: row["state"] for row in result["rows"]}
    assert states == {3: "fail", 64: "complete"}
    assert {row.get("error", "")[:32] for row in result["rows"]} == {
        "",
        "stage train_reader failed: rank ",
    }
