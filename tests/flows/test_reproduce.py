"""What a reproduction concludes, what tells machines apart, and lineage where little is known."""

from __future__ import annotations

import os
import platform

import pytest
from rich.console import Console

from flows.lineage_tree import lineage_tree
from flows.machine import differences, machine
from flows.provenance import Origin, describe
from flows.reproduce import DIFFERENT, EQUIVALENT, IDENTICAL, outcome
from rag.params import Params
from rag.release.registry import ReleaseVersion

WITHIN = [{"metric": "f1", "within": True}]
OUTSIDE = [*WITHIN, {"metric": "bleu", "within": False}]
OTHER = ["torch: 2.13.0 then, 2.14.0 now"]


def test_on_the_same_kind_of_machine_only_bytes_count() -> None:
    assert outcome(False, True, [], WITHIN) == IDENTICAL
    assert outcome(True, True, [], WITHIN) == DIFFERENT


def test_on_another_kind_metrics_may_speak_for_it() -> None:
    assert outcome(True, True, OTHER, WITHIN) == EQUIVALENT
    assert outcome(True, True, OTHER, OUTSIDE) == DIFFERENT
    assert outcome(True, True, OTHER, []) == DIFFERENT, "no metrics say nothing"
    assert outcome(True, False, OTHER, WITHIN) == DIFFERENT, "nothing was made"


def test_machines_are_told_apart_by_what_changes_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SECRET", "nobody's business")
    here = machine()
    assert (here["threads"], here["python"]) == (3, platform.python_version())
    assert set(here) == {"processor", "threads", "system", "python", "libraries"}
    assert differences(here, machine()) == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert machine()["threads"] == len(os.sched_getaffinity(0))
    other = {**here, "threads": 8, "libraries": {**here["libraries"], "torch": "1.0"}}
    del other["libraries"]["numpy"]
    numpy, torch = here["libraries"]["numpy"], here["libraries"]["torch"]
    assert differences(here, other) == [
        f"numpy: {numpy} then, missing now",
        "threads: 3 then, 8 now",
        f"torch: {torch} then, 1.0 now",
    ]


def release(**tags: str) -> ReleaseVersion:
    return ReleaseVersion("ragloop", "3", "run-3", "m-3", "2026-11-26T08:00:00+00:00", tags)


def shown(found: dict[str, object]) -> str:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(lineage_tree(found))
    return console.export_text()


def test_a_release_without_recorded_lineage_shows_its_tags() -> None:
    tags = {"git_commit": "abc-dirty", "dvc_lock": "dd", "fingerprint": "ff", "decision": "PROMOTE"}
    found = describe(Origin(release(**tags), {}, {}, {}, {}), Params())
    assert found["code"] == {"commit": "abc", "dirty": True, "uncommitted": None}
    assert found["recorded"] is False
    text = shown(found)
    for word in ("ragloop version 3", "PROMOTE", "commit abc", "dvc.lock dd", "index ff"):
        assert word in text
    assert "key unknown" in text


def test_uncommitted_code_and_many_files_are_said() -> None:
    data = {f"data/raw/{i:02}.md": {"md5": f"{i:032}", "size": 1000} for i in range(14)}
    record = {"uncommitted": ["rag/[x].py"], "data": data, "machine": machine(), "format": 1}
    files = {"params.yaml": "reader:\n  kind: extractive\nseed: 13\n"}
    origin = Origin(release(git_commit="abc-dirty"), {"ragloop.dvc_exp": "e-1"}, record, files, {})
    text = shown(describe(origin, Params()))
    assert "code that was in no commit when it was trained: rag/[x].py" in text
    assert "experiment of DVC e-1" in text
    assert "14.0 kB" in text
    assert "data/raw/11.md" in text
    assert "data/raw/12.md" not in text
    assert "... and 2 more files" in text
    assert "reader.kind: extractive" in text
    assert "seed" not in text, "a default was not chosen"
