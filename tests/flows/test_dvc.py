"""The DVC runner on a real repository of one stage: Ran, Cached, failed, killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows import dvc
from flows.snapshot import take_snapshot
from rag.artifacts import Artifacts
from rag.errors import DataError, InputError, RagError
from rag.progress import read_progress
from tests.flows.programs import are_gone, pids_in, set_params


def test_a_stage_runs_then_nothing_changed_then_the_run_cache_knows_it(
    dvc_project: Artifacts,
) -> None:
    lines: list[str] = []
    first = dvc.reproduce("work", dvc_project, on_line=lines.append)
    assert (first.stage, first.result) == ("work", "Ran")
    assert lines == ["working"], "the stage's own lines, and none of DVC's"
    assert read_progress(dvc.progress_file(dvc_project)) == ("work", 1, 4, None)
    assert dvc.reproduce("work", dvc_project).result == "Cached"

    set_params(dvc_project.root, x=2)
    assert dvc.reproduce("work", dvc_project).result == "Ran"
    assert (dvc_project.root / "out.txt").read_text() == "2"

    set_params(dvc_project.root, x=1)
    assert dvc.reproduce("work", dvc_project).result == "Cached"
    assert (dvc_project.root / "out.txt").read_text() == "1"
    assert dvc.status(dvc_project.root) == {}
    assert dvc.reproduce("work", dvc_project, force=True).result == "Ran"


def test_bad_input_is_told_in_the_stages_own_words(dvc_project: Artifacts) -> None:
    set_params(dvc_project.root, x=1, fail=2)
    with pytest.raises(InputError) as caught:
        dvc.reproduce("work", dvc_project)
    assert caught.value.problems == ("first problem", "second problem")
    assert caught.value.hint == "what to do"
    assert not (dvc_project.root / "out.txt").exists()


def test_other_failures_name_the_stage_and_its_log(dvc_project: Artifacts) -> None:
    set_params(dvc_project.root, x=1, fail=1)
    with pytest.raises(RagError, match="stage work failed: second problem") as caught:
        dvc.reproduce("work", dvc_project)
    assert caught.value.exit_code == 1
    log = dvc.log_file(dvc_project, "work")
    assert str(log) in str(caught.value)
    assert "working\n" in log.read_text()


def test_a_missing_stage_is_told_in_dvcs_words(dvc_project: Artifacts) -> None:
    with pytest.raises(RagError, match="nothing"):
        dvc.reproduce("nothing", dvc_project)


class Cancelled(BaseException):
    """As Prefect cancels a flow: raised wherever the flow happens to be."""


def test_a_cancelled_stage_leaves_no_process(dvc_project: Artifacts) -> None:
    set_params(dvc_project.root, x=1, seconds=60)

    def cancel() -> None:
        if (dvc_project.root / "pids").exists():
            raise Cancelled

    with pytest.raises(Cancelled):
        dvc.reproduce("work", dvc_project, poll=cancel)
    assert are_gone(pids_in(dvc_project.root), within_seconds=0.5)
    set_params(dvc_project.root, x=3)
    assert dvc.reproduce("work", dvc_project).result == "Ran", "no lock is left behind"


def test_a_stage_that_takes_too_long_is_stopped(dvc_project: Artifacts) -> None:
    set_params(dvc_project.root, x=1, seconds=60)
    with pytest.raises(RagError, match="stage work: stopped after 2 seconds"):
        dvc.reproduce("work", dvc_project, timeout_seconds=2)
    if (dvc_project.root / "pids").exists():
        assert are_gone(pids_in(dvc_project.root), within_seconds=0.5)


def test_the_demo_is_imported_once_and_its_snapshot_recorded(dvc_project: Artifacts) -> None:
    demo_corpus(dvc_project.demo)
    first = take_snapshot(dvc_project)
    assert first.detail == "demo imported: 1 documents, 1 questions, recorded"
    assert first.data_hash.endswith(".dir")
    second = take_snapshot(dvc_project)
    assert (second.data_hash, second.detail) == (first.data_hash, "unchanged")

    (dvc_project.raw / "documents" / "tern.md").write_text("# Tern\n\nThe Tern carries mail.\n")
    third = take_snapshot(dvc_project)
    assert third.detail == "recorded"
    assert third.data_hash != first.data_hash


def test_recorded_data_is_put_back_and_never_replaced_by_the_demo(dvc_project: Artifacts) -> None:
    demo_corpus(dvc_project.demo)
    first = take_snapshot(dvc_project)
    remove(dvc_project.raw)
    assert take_snapshot(dvc_project).detail == "put back from DVC's cache"

    remove(dvc_project.raw)
    remove(dvc_project.root / ".dvc" / "cache")
    with pytest.raises(DataError, match="dvc pull"):
        take_snapshot(dvc_project)
    assert dvc.recorded_hash(dvc_project.root / "data" / "raw.dvc") == first.data_hash


def test_no_data_at_all_says_how_to_take_some_in(dvc_project: Artifacts) -> None:
    with pytest.raises(DataError, match="ragloop data import PATH"):
        take_snapshot(dvc_project)


def demo_corpus(folder: Path) -> None:
    documents = folder / "documents"
    documents.mkdir(parents=True)
    (documents / "auk.md").write_text("# Auk\n\nThe Auk sails from Ashby.\n")
    row = {"id": "q1", "question": "Where from?", "answers": ["Ashby"], "document": "auk.md"}
    (folder / "questions.jsonl").write_text(json.dumps(row) + "\n")


def remove(folder: Path) -> None:
    """Also where DVC has made files read-only."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
