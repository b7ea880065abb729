"""The chain of the ledger: what is appended is read back, and what is altered is named."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from rag.errors import ReleaseError
from rag.records import sorted_json
from rag.release import ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "ledger.jsonl"
    for version in "123":
        ledger.append(path, {"event": "promote", "version": version, "time": "2026-01-01"})
    return path


def test_rows_are_chained(path: Path) -> None:
    rows = ledger.read(path)
    assert [row["version"] for row in rows] == ["1", "2", "3"]
    assert [row["sequence"] for row in rows] == [1, 2, 3]
    assert rows[0]["previous_hash"] == "0" * 64
    assert rows[1]["previous_hash"] == rows[0]["hash"]
    content = (
        '{"event":"promote","previous_hash":"'
        + "0" * 64
        + '","sequence":1,"time":"2026-01-01","version":"1"}'
    )
    assert rows[0]["hash"] == hashlib.sha256(content.encode()).hexdigest()


def test_no_ledger_is_an_empty_one(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("tamper", "row"),
    [
        (lambda lines: [lines[0], lines[1].replace('"2"', '"9"'), lines[2]], "row 2"),
        (lambda lines: [lines[0], lines[2]], "row 2"),
        (lambda lines: [lines[1], lines[2]], "row 1"),
        (lambda lines: [lines[1], lines[0], lines[2]], "row 1"),
        (lambda lines: [*lines[:2], "not json"], "row 3"),
    ],
    ids=["changed", "removed", "beheaded", "swapped", "broken"],
)
def test_an_altered_row_is_named_and_nothing_is_appended(
    path: Path, tamper: Callable[[list[str]], list[str]], row: str
) -> None:
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in tamper(lines)))
    before = path.read_bytes()
    with pytest.raises(ReleaseError, match=row):
        ledger.read(path)
    with pytest.raises(ReleaseError, match=row):
        ledger.append(path, {"version": "4"})
    assert path.read_bytes() == before


def test_a_rehashed_row_breaks_the_next_one(path: Path) -> None:
    """Whoever changes a row and its hash would have to change all that follow."""
    first, *rest = path.read_text().splitlines()
    row = json.loads(first) | {"version": "9"}
    del row["hash"]
    row["hash"] = ledger._row_hash(row)
    path.write_text("\n".join([sorted_json(row), *rest]) + "\n")
    with pytest.raises(ReleaseError, match="row 2 does not follow"):
        ledger.read(path)


def test_a_half_written_line_is_no_row(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"event": "prom')
    assert len(ledger.read(path)) == 3
    assert ledger.append(path, {"version": "4"})["sequence"] == 4
    assert [row["version"] for row in ledger.read(path)] == ["1", "2", "3", "4"]


def test_a_row_must_be_json_and_may_not_bring_its_own_hash(path: Path) -> None:
    for row in ({"value": float("nan")}, {"value": Path()}, {"hash": "mine"}):
        with pytest.raises(ReleaseError):
            ledger.append(path, row)
    assert len(ledger.read(path)) == 3


def _append_many(path: Path) -> None:
    for _ in range(20):
        ledger.append(path, {"event": "noted"})


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [row["sequence"] for row in ledger.read(path)] == list(range(1, 81))
