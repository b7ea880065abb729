"""Differences are told by stage and by file, with both hashes, and causes before what follows."""

from __future__ import annotations

from flows.differences import compare_inputs, compare_metrics, compare_stages
from flows.dvc_files import FileFacts, StageLock

PREPARE = StageLock(
    "prepare", {"data/raw": "d1.dir", "rag/corpus": "c1.dir"}, {"data/prepare": "p1.dir"}
)
TRAIN = StageLock("train", {"data/prepare": "p1.dir"}, {"model.bin": "m1"})
FILES = {
    "data/raw/a.md": "a1",
    "data/raw/b.md": "b1",
    "data/prepare/x": "x1",
    "data/prepare/y": "y1",
    "data/prepared.txt": "not of the folder",
    "model.bin": "m1",
}


def facts(**files: str) -> dict[str, FileFacts]:
    return {name.replace("__", "/"): FileFacts(md5, 1) for name, md5 in files.items()}


def test_equal_locks_differ_in_nothing() -> None:
    assert compare_stages([PREPARE, TRAIN], [PREPARE, TRAIN], FILES, lambda _: {}) == []


def test_a_changed_output_is_named_by_stage_and_file() -> None:
    prepare = StageLock("prepare", PREPARE.inputs, {"data/prepare": "p2.dir"})
    train = StageLock("train", {"data/prepare": "p2.dir"}, {"model.bin": "m2"})
    found = {
        "data/prepare": facts(data__prepare__x="x1", data__prepare__z="z2"),
        "model.bin": {"model.bin": FileFacts("m2", 1)},
    }
    lines = [
        item.spoken()
        for item in compare_stages([PREPARE, TRAIN], [prepare, train], FILES, found.__getitem__)
    ]
    assert lines == [
        "prepare: output data/prepare/y: recorded y1, found missing",
        "prepare: output data/prepare/z: recorded missing, found z2",
        "train: output model.bin: recorded m1, found m2",
    ], "what prepare made is not told again as an input of train"


def test_an_input_that_no_stage_makes_is_the_cause_and_comes_first() -> None:
    prepare = StageLock(
        "prepare", {**PREPARE.inputs, "rag/corpus": "c2.dir"}, {"data/prepare": "p2.dir"}
    )
    differences = compare_stages([PREPARE], [prepare], {}, lambda _: {})
    assert [(item.kind, item.path, item.recorded, item.found) for item in differences] == [
        ("input", "rag/corpus", "c1.dir", "c2.dir"),
        ("output", "data/prepare", "p1.dir", "p2.dir"),
    ], "folders whose files were not recorded are told whole"


def test_a_stage_that_is_gone_is_missing() -> None:
    (lost,) = compare_stages([PREPARE, TRAIN], [PREPARE], {}, lambda _: {})
    assert (lost.stage, lost.path, lost.found) == ("train", "model.bin", "missing")


def test_changed_data_is_named_with_the_stage_that_reads_it() -> None:
    recorded = {path: md5 for path, md5 in FILES.items() if path.startswith("data/raw/")}
    found = {"data/raw/a.md": FileFacts("a1", 3), "data/raw/b.md": FileFacts("b2", 3)}
    lines = [item.spoken() for item in compare_inputs([PREPARE, TRAIN], recorded, found)]
    assert lines == ["prepare: input data/raw/b.md: recorded b1, found b2"]


def test_metrics_are_within_their_recorded_interval_or_not() -> None:
    recorded = {
        "systems": {
            "tuned": {
                "f1": {"value": 60.0, "low": 55.0, "high": 65.0},
                "exact_match": {"value": 50.0, "low": 45.0, "high": 55.0},
                "bleu": {"value": 9.0, "low": 8.0, "high": 10.0},
            }
        }
    }
    found = {"systems": {"tuned": {"f1": {"value": 65.0}, "exact_match": {"value": 44.9}}}}
    rows = compare_metrics(recorded, found)
    assert [(row["metric"], row["reproduced"], row["within"]) for row in rows] == [
        ("f1", 65.0, True),
        ("exact_match", 44.9, False),
        ("bleu", None, False),
    ]
