"""Which results of stages leave DVC's cache: old ones that nothing names, and never data."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from flows import stage_cache


class Cache:
    """A cache as DVC lays it out; a hash here is its content's name, twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = 0

    def file(self, name: str, content: str | None = None) -> str:
        path = self.folder / "files" / "md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name if content is None else content)
        path.chmod(0o444)
        return name

    def directory(self, name: str, files: Sequence[str]) -> str:
        listed = [{"md5": self.file(file), "relpath": file} for file in files]
        return self.file(f"{name}.dir", json.dumps(listed))

    def row(self, stage: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """A run of a stage, later than all before."""
        self.rows += 1
        path = self.folder / "runs" / "ab" / f"key{self.rows}" / "value"
        path.parent.mkdir(parents=True)
        deps, outs = ([{"path": name, "md5": name} for name in part] for part in (inputs, outputs))
        path.write_text(
            yaml.safe_dump({"cmd": f"python -m rag {stage}", "deps": deps, "outs": outs})
        )
        os.utime(path, (self.rows, self.rows))

    def goes(self, *, named: Sequence[str] = (), keep: int = 2) -> list[tuple[int, list[str]]]:
        found = stage_cache.plan(self.folder, set(named), keep=keep)
        return [
            (round(item.row.written), [path.parent.name + path.name for path in item.files])
            for item in found
        ]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Three runs of two stages on the same data; `shared` is in every reader."""
    found = Cache(tmp_path)
    raw = found.directory("rawdata", ["document"])
    for number in (1, 2, 3):
        prepared = found.file(f"prepared{number}")
        found.row("prepare", [raw], [prepared])
        reader = found.directory(f"reader{number}", [f"weights{number}", "shared"])
        found.row("train_reader", [prepared], [reader])
    return found


def test_of_each_stage_the_newest_stay(cache: Cache) -> None:
    assert cache.goes() == [(1, ["prepared1"]), (2, ["reader1.dir", "weights1"])]
    assert cache.goes(keep=3) == []


def test_what_a_lock_names_stays(cache: Cache) -> None:
    assert cache.goes(named=["reader1.dir"]) == [(1, ["prepared1"]), (2, [])]


def test_data_stays_although_only_old_runs_read_it(cache: Cache) -> None:
    other = cache.directory("otherdata", ["new document"])
    for number in (4, 5):
        cache.row("prepare", [other], [cache.file(f"prepared{number}")])
    assert ("rawdata.dir" in str(cache.goes())) is False
    assert ("document" in str(cache.goes())) is False


def test_an_output_that_is_also_an_input_of_what_stays_stays(cache: Cache) -> None:
    cache.row("train_reader", ["prepared1"], [cache.file("reader4")])
    assert dict(cache.goes())[1] == []


def test_a_row_that_is_half_written_is_left_alone(cache: Cache) -> None:
    (cache.folder / "runs" / "ab" / "key1" / "half").write_text("cmd: [")
    assert len(cache.goes()) == 2


def test_the_cache_is_where_dvcs_settings_say(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    assert stage_cache.cache_folder(tmp_path) == tmp_path / ".dvc" / "cache"
    (tmp_path / ".dvc" / "config.local").write_text("[cache]\n    dir = ../elsewhere\n")
    assert stage_cache.cache_folder(tmp_path) == tmp_path / "elsewhere"
