"""No edit, removal or reordering of a ledger goes unseen, and a crash at any byte loses no row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rag.errors import ReleaseError
from rag.records import sorted_json
from rag.release import ledger
from rag.release.torn_row import is_torn

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
MANY = settings(max_examples=40, deadline=None)
#: Rows with all that JSON has to escape, nest or round.
ROWS: list[dict[str, Any]] = [
    {"outcome": "PROMOTE", "version": "1", "why": 'He said "yes\\no"\n'},
    {"decision": {"checks": [{"low": -0.1, "passed": True}, {}], "notes": []}, "version": None},
    {"who": "北京 é \U0001f427", "números": [1, 2.5e-07, 1e6]},
]


@dataclass(frozen=True)
class Written:
    """A ledger of ROWS, with its bytes and its head after each of them."""

    path: Path
    stages: list[bytes]
    heads: list[bytes]

    def put(self, content: bytes, head: int = -1) -> None:
        """The ledger with this content; its head names the row of that stage."""
        self.path.write_bytes(content)
        self.path.with_suffix(".head").write_bytes(self.heads[head])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    path = tmp_path_factory.mktemp("chain") / "ledger.jsonl"
    stages, heads = [], []
    for row in ROWS:
        ledger.append(path, row)
        stages.append(path.read_bytes())
        heads.append(path.with_suffix(".head").read_bytes())
    return Written(path, stages, heads)


@MANY
@given(data=st.data())
def test_an_edit_is_detected(written: Written, data: st.DataObject) -> None:
    """Any one byte of any row, replaced, inserted or taken out."""
    whole = written.stages[-1]
    content = bytearray(whole)
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255))
    how = data.draw(st.sampled_from(["replace", "insert", "remove"]))
    if how == "replace":
        content[place] = byte
    elif how == "insert":
        content.insert(place, byte)
    else:
        del content[place]
    # The last line end is no part of a row: a row without it is complete all the same.
    assume(bytes(content).removesuffix(b"\n") != whole.removesuffix(b"\n"))
    written.put(bytes(content))
    with pytest.raises(ReleaseError, match="row"):
        ledger.verify(written.path)


@MANY
@given(order=st.lists(st.sampled_from(range(len(ROWS))), max_size=len(ROWS) + 1))
def test_a_row_that_is_removed_moved_or_repeated_is_detected(
    written: Written, order: list[int]
) -> None:
    """Also the last ones, which the chain alone would not miss."""
    assume(order != list(range(len(ROWS))))
    lines = written.stages[-1].splitlines(keepends=True)
    written.put(b"".join(lines[place] for place in order))
    for call in (ledger.verify, lambda path: ledger.append(path, {"more": 1})):
        with pytest.raises(ReleaseError, match="row"):
            call(written.path)


@MANY
@given(data=st.data())
def test_a_crash_at_any_byte_of_the_last_row_is_repaired(
    written: Written, data: st.DataObject
) -> None:
    before, whole = written.stages[-2:]
    cut = data.draw(st.integers(len(before), len(whole) - 1))
    written.put(whole[:cut], head=-2)
    complete = cut == len(whole) - 1
    assert ledger.verify(written.path) == len(ROWS) - (not complete)
    assert (ledger.repair(written.path) is None) == (cut == len(before))
    assert written.path.read_bytes() == (whole if complete else before)
    assert ledger.repair(written.path) is None


def test_after_a_crash_the_next_row_follows_the_last_whole_one(written: Written) -> None:
    for cut, expected in ((-20, b""), (-1, b"\n")):
        whole = written.stages[-1]
        written.put(whole[:cut], head=-2)
        row = ledger.append(written.path, {"more": 1})
        kept = written.stages[-1] if expected else written.stages[-2]
        assert written.path.read_bytes() == kept + sorted_json(row).encode() + b"\n"
        assert row["sequence"] == ledger.verify(written.path)


@MANY
@given(row=st.dictionaries(st.text(max_size=4), VALUES, max_size=4), data=st.data())
def test_only_the_beginning_of_a_row_is_torn(row: dict[str, Any], data: st.DataObject) -> None:
    text = sorted_json(row).encode()
    assert is_torn(text[: data.draw(st.integers(1, len(text) - 1))])
    assert not is_torn(text), "it is complete"
    assert not is_torn(
        data.draw(st.sampled_from([b"[1", b'"{', b"}{", b'{"a" "', b"\xff{"])) + text
    )


@pytest.mark.parametrize("tail", [b"# a note", b'{"a":1]', b"{a", b'{"a":1} {"b"', b"\x00\x00"])
def test_what_is_no_beginning_of_a_row_is_never_cut_off(written: Written, tail: bytes) -> None:
    content = written.stages[-1] + tail
    written.put(content)
    for call in (ledger.read, ledger.repair, lambda path: ledger.append(path, {})):
        with pytest.raises(ReleaseError, match="row 4"):
            call(written.path)
    assert written.path.read_bytes() == content


def test_rows_of_before_the_chain_are_kept_and_pinned(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    old = b'{"outcome": "PROMOTE", "version": "1"}\n{"outcome": "REJECT", "version": "2"}\n'
    path.write_bytes(old)
    assert [row["version"] for row in ledger.read(path)] == ["1", "2"]
    assert ledger.append(path, {"version": "3"})["sequence"] == 3
    assert [row["version"] for row in ledger.read(path)] == ["1", "2", "3"]
    whole = path.read_bytes()
    for altered in (whole.replace(b'"2"', b'"7"'), whole[whole.index(b"\n") + 1 :]):
        path.write_bytes(altered)
        with pytest.raises(ReleaseError, match="row"):
            ledger.verify(path)
    path.write_bytes(whole + b'{"version": "4"}\n')
    with pytest.raises(ReleaseError, match="row 4 is out of sequence"):
        ledger.verify(path)


def test_a_ledger_that_is_gone_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, {"version": "1"})
    path.unlink()
    with pytest.raises(ReleaseError, match="rows were removed"):
        ledger.read(path)
