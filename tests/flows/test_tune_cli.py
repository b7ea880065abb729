"""flows/tune_cli.py and the pure parts of flows/tune.py and flows/tune_result.py."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import tune, tune_cli, tune_result
from rag.artifacts import Artifacts
from rag.errors import BusyError, DataError
from rag.params import load_params
from rag.search_space import search_space
from tests.flows.conftest import Done
from tests.flows.programs import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Artifacts:
    """A project that has params, a pipeline and a document, and no code of its own."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "a.md").write_text("Ann.")
    return Artifacts(tmp_path)


def test_a_wrong_space_is_one_error_and_exit_code_2(
    project: Artifacts, ragloop_here: Callable[..., Done]
) -> None:
    text = project.params.read_text().replace("reader.lora.rank: {", "reader.lora.rnk: {")
    project.params.write_text(text)
    done = ragloop_here(project.root, "tune")
    assert done.code == 2
    assert done.errors == ["error: tune.space.reader.lora.rnk: unknown key"]
    assert not project.state.exists()


def test_there_must_be_data_and_no_other_search(project: Artifacts) -> None:
    params = load_params(project.params)
    held = project.state / "tune" / "lock"
    held.parent.mkdir(parents=True)
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError):
            tune.tune(project, params)
    shutil.rmtree(project.raw)
    with pytest.raises(DataError, match="there is nothing to learn from"):
        tune.tune(project, params)


def test_a_study_goes_on_until_something_changes_that_trials_depend_on(project: Artifacts) -> None:
    def name(*changes: str, data: str = "data") -> str:
        params = load_params(project.params, changes)
        return tune.study_name(project, params, search_space(params), data)

    first = name()
    same = ("reader.lora.rank=8", "reader.training.learning_rate=0.0003", "tune.trials=50")
    for change in (*same, "gate.min_effect=1.0", "evaluate.oracle=true", "tune.workers=2"):
        assert name(change) == first, change
    others = ("reader.lora.alpha=16", "seed=1", "prepare.dev_share=0.2", "tune.pruner=none")
    names = {first, name(data="other"), *map(name, others)}
    assert len(names) == 6
    assert all(item.isalnum() for item in names)


def test_evaluations_are_counted_and_a_torn_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert tune_result.evaluations(path, "dev_f1") == []
    rows: list[dict[str, float]] = [
        {"step": 10, "loss": 2.0},
        {"step": 14, "dev_f1": 20.5, "dev_exact_match": 3.0},
        {"step": 28, "dev_f1": 31.0},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text + '{"step": 42, "dev_')
    assert tune_result.evaluations(path, "dev_f1") == [(1, 20.5), (2, 31.0)]
    path.write_text('{"step": 0, "dev_recall@5": 60.0}\n{"step": 9, "dev_recall@5": 64.0}\n')
    assert tune_result.evaluations(path, "dev_recall@5") == [(0, 60.0), (1, 64.0)]


def test_the_diff_is_what_apply_writes_and_comments_stay(project: Artifacts) -> None:
    params = load_params(project.params)
    values = {"reader.lora.rank": 8, "reader.training.learning_rate": 0.001}
    changes = tune_cli.changes_to(params, values)
    assert changes == ["reader.lora.rank=8"]  # the other one is there already
    before = project.params.read_text()
    shown = tune_cli.diff(project, changes)
    removed = [line for line in shown.splitlines() if line.startswith("-") and "---" not in line]
    added = [line for line in shown.splitlines() if line.startswith("+") and "+++" not in line]
    assert (removed, added) == (["-    rank: 16"], ["+    rank: 8"])
    assert project.params.read_text() == before
    assert tune_cli._write(project, changes) is None
    assert project.params.read_text() == before.replace("    rank: 16\n", "    rank: 8\n", 1)
    assert tune_cli.diff(project, []) == ""


def test_apply_waits_for_no_retraining(project: Artifacts) -> None:
    project.lock.parent.mkdir(parents=True)
    before = project.params.read_text()
    with project.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert isinstance(tune_cli._write(project, ["reader.lora.rank=8"]), BusyError)
    assert project.params.read_text() == before


def test_the_result_names_best_current_importance_and_diff(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def row(trial: int, state: str, value: float | None, rank: int) -> dict[str, Any]:
        params = {"reader.lora.rank": rank}
        return {"trial": trial, "state": state, "value": value, "params": params}

    rows = [row(0, "complete", 61.5, 16), row(1, "pruned", 70.0, 4), row(2, "complete", 64.25, 8)]
    result = {
        "study": "tune0123",
        "metric": "dev_f1",
        "trials": {"complete": 2, "pruned": 1, "fail": 0},
        "best": rows[2],
        "current": rows[0],
        "importance": {"reader.lora.rank": 1.0},
        "rows": rows,
        "diff": "-    rank: 16\n+    rank: 8\n",
        "applied": False,
    }
    tune_cli.print_result(result)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ["trial", "dev_f1", "reader.lora.rank"],
        ["2", "64.25", "8"],
        ["0", "61.50", "16"],
        ["1", "70.00", "4", "pruned"],
    ]
    text = [" ".join(line) for line in lines]
    assert "tune0123: 2 trials completed, 1 pruned, 0 failed" in text
    assert "best: trial 2, dev_f1 64.25 (params.yaml as it is: 61.50)" in text
    assert "importance: reader.lora.rank 100 %" in text
    assert "+ rank: 8" in text
