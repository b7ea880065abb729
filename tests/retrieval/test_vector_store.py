"""rag/retrieval/vector_store.py: never a wrong vector, whatever is cut off, killed or damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rag.errors import BusyError, RagError
from rag.retrieval import vector_store
from rag.retrieval.vector_store import KEY_BYTES, VectorStore, as_keys, text_key
from tests.retrieval.hash_encoder import DIMENSION, vector_of

ENCODER = "0123456789abcdef" * 4
OTHER = "f" * 64
TEXTS = ["one", "two", "three", "four", "five"]
ROW, RECORD = 4 * DIMENSION, KEY_BYTES + 4


def keys_of(texts: list[str]) -> vector_store.Keys:
    return as_keys([text_key(text) for text in texts])


def add(store: VectorStore, *texts: str) -> None:
    store.append(keys_of(list(texts)), np.stack([vector_of(text) for text in texts]))


def known_texts(store: VectorStore, texts: list[str] = TEXTS) -> list[str]:
    """The texts that are known; the vector of each must be its own."""
    positions = store.find(keys_of(texts))
    found = np.flatnonzero(positions >= 0)
    rows = store.rows(positions[found])
    for i, row in zip(found, rows, strict=True):
        np.testing.assert_array_equal(row, vector_of(texts[i]))
    return [texts[i] for i in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of five texts, committed in parts of two, one and two."""
    with VectorStore(tmp_path / "vectors", ENCODER) as store:
        add(store, "one", "two")
        add(store, "three")
        add(store, "four", "five")
    return tmp_path / "vectors"


def files(folder: Path) -> tuple[Path, Path]:
    return folder / ENCODER[:16] / "0.rows", folder / ENCODER[:16] / "0.keys"


def test_what_was_committed_is_found_by_the_next_process(folder: Path) -> None:
    with VectorStore(folder, ENCODER) as store:
        assert len(store) == 5
        assert store.dimension == DIMENSION
        assert known_texts(store, ["five", "six", "one", "one"]) == ["five", "one", "one"]
        assert not store.damaged(store.find(keys_of(TEXTS))).any()
    rows, keys = files(folder)
    assert (rows.stat().st_size, keys.stat().st_size) == (5 * ROW, 5 * RECORD)


def test_an_empty_store_knows_nothing(tmp_path: Path) -> None:
    with VectorStore(tmp_path, ENCODER) as store:
        assert len(store) == 0
        assert store.dimension is None
        assert store.find(keys_of(["one"])).tolist() == [-1]
        assert store.find(as_keys([])).tolist() == []


def test_keys_that_end_in_zero_bytes_are_told_apart(tmp_path: Path) -> None:
    keys = as_keys([b"k" * (16 - zeros) + b"\0" * zeros for zeros in (0, 1, 2, 16)])
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    with VectorStore(tmp_path, ENCODER) as store:
        store.append(keys, vectors)
    with VectorStore(tmp_path, ENCODER) as store:
        positions = store.find(keys)
        assert positions.tolist() == [0, 1, 2, 3]
        assert not store.damaged(positions).any()


@pytest.mark.parametrize("rows_cut", [0, 1, 4, ROW - 1, ROW, ROW + 1, 3 * ROW, 5 * ROW])
def test_a_write_cut_off_anywhere_loses_the_end_and_nothing_else(
    folder: Path, tmp_path: Path, rows_cut: int
) -> None:
    """Rows that are whole, torn or missing, with keys of every length, or of every kind of it."""
    kinds = {0, 1, KEY_BYTES, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD, 5 * RECORD - 1}
    for keys_length in kinds if rows_cut else range(5 * RECORD + 1):
        copy = tmp_path / f"copy-{keys_length}"
        shutil.copytree(folder, copy)
        rows, keys = files(copy)
        os.truncate(rows, 5 * ROW - rows_cut)
        os.truncate(keys, keys_length)
        whole = min((5 * ROW - rows_cut) // ROW, keys_length // RECORD)
        with VectorStore(copy, ENCODER) as store:
            assert known_texts(store) == TEXTS[:whole]
            add(store, *TEXTS[whole:], "six")
        with VectorStore(copy, ENCODER) as store:
            assert known_texts(store, [*TEXTS, "six"]) == [*TEXTS, "six"]
            assert not store.damaged(np.arange(6)).any()


def test_rows_without_keys_are_no_rows_of_the_next_commit(folder: Path) -> None:
    """Killed between the two writes: the next key must not be given the row that was left."""
    rows, _ = files(folder)
    with rows.open("ab") as file:
        file.write(vector_of("lost").tobytes())
    with VectorStore(folder, ENCODER) as store:
        add(store, "six")
        assert known_texts(store, [*TEXTS, "lost", "six"]) == [*TEXTS, "six"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[:ROW] + b"\0" * ROW + content[2 * ROW :],
        lambda content: (
            content[: 2 * ROW - 1] + bytes([content[2 * ROW - 1] ^ 1]) + content[2 * ROW :]
        ),
        lambda content: content[:ROW] + content[:ROW] + content[2 * ROW :],
    ],
    ids=["zeros", "one bit", "another row"],
)
def test_a_damaged_row_is_known_as_such_until_it_is_written_again(
    folder: Path, harm: Callable[[bytes], bytes]
) -> None:
    rows, _ = files(folder)
    rows.write_bytes(harm(rows.read_bytes()))
    with VectorStore(folder, ENCODER) as store:
        positions = store.find(keys_of(TEXTS))
        assert store.damaged(positions).tolist() == [False, True, False, False, False]
        add(store, "two")
        assert not store.damaged(store.find(keys_of(TEXTS))).any()
        assert known_texts(store) == TEXTS


def test_the_store_of_another_encoder_is_never_used(folder: Path) -> None:
    with VectorStore(folder, OTHER) as store:
        assert known_texts(store) == []
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        ENCODER[:16],
        OTHER[:16],
    ]


def test_an_encoder_that_shares_the_folder_name_starts_anew(folder: Path) -> None:
    with VectorStore(folder, ENCODER[:16] + "0" * 48) as store:
        assert len(store) == 0
        assert known_texts(store) == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"encoder": 1}'])
def test_a_store_without_sound_facts_starts_anew(folder: Path, content: str | None) -> None:
    path = folder / ENCODER[:16] / "store.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with VectorStore(folder, ENCODER) as store:
        assert len(store) == 0
        add(store, "one")
    with VectorStore(folder, ENCODER) as store:
        assert known_texts(store) == ["one"]


def test_one_writer_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_store, "_LOCK_SECONDS", 0.1)
    with VectorStore(folder, ENCODER):
        with pytest.raises(BusyError, match="another process is encoding"):
            VectorStore(folder, ENCODER).__enter__()
        with VectorStore(folder, OTHER):
            pass
    with VectorStore(folder, ENCODER) as store:
        assert len(store) == 5


def test_a_vector_that_is_not_finite_is_refused(folder: Path) -> None:
    with VectorStore(folder, ENCODER) as store:
        for value in (np.nan, np.inf):
            bad = np.full((1, DIMENSION), value, dtype=np.float32)
            with pytest.raises(RagError, match="not finite"):
                store.append(keys_of(["six"]), bad)
        with pytest.raises(ValueError, match="1 keys"):
            store.append(keys_of(["six"]), np.ones((1, DIMENSION + 1), dtype=np.float32))
        assert known_texts(store, [*TEXTS, "six"]) == TEXTS


class TestCompaction:
    def test_keeps_what_is_used_once_it_is_less_than_half(self, folder: Path) -> None:
        rows, keys = files(folder)
        with VectorStore(folder, ENCODER) as store:
            assert not store.compact(keys_of(["one", "four", "five", "five"]))
            assert store.compact(keys_of(["five", "two", "two", "unknown"]))
            assert known_texts(store) == ["two", "five"]
            add(store, "six")
        assert not rows.exists()
        assert not keys.exists()
        assert rows.with_name("1.rows").stat().st_size == 3 * ROW
        with VectorStore(folder, ENCODER) as store:
            assert known_texts(store, [*TEXTS, "six"]) == ["two", "five", "six"]

    def test_gives_the_same_files_each_time(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "copy")
        for place in (folder, tmp_path / "copy"):
            with VectorStore(place, ENCODER) as store:
                store.compact(keys_of(["five", "two"]))
        for name in ("store.json", "1.rows", "1.keys"):
            first, second = (place / ENCODER[:16] / name for place in (folder, tmp_path / "copy"))
            assert first.read_bytes() == second.read_bytes()

    @pytest.mark.parametrize("step", range(4))
    def test_a_kill_at_any_step_leaves_every_used_vector(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        """Rows, keys and facts are each synced once; after the third, all is done."""
        sync, calls = os.fsync, []

        def fsync(file: int) -> None:
            calls.append(file)
            if len(calls) == step + 1:
                raise KeyboardInterrupt
            sync(file)

        used = keys_of(["two", "five"])
        with monkeypatch.context() as patch, VectorStore(folder, ENCODER) as store:
            patch.setattr(os, "fsync", fsync)
            if step < 3:
                with pytest.raises(KeyboardInterrupt):
                    store.compact(used)
            else:
                assert store.compact(used)
        with VectorStore(folder, ENCODER) as store:
            assert known_texts(store) == (TEXTS if step < 3 else ["two", "five"])
            store.compact(used)
            assert known_texts(store) == ["two", "five"]
        assert len(list((folder / ENCODER[:16]).iterdir())) == 3


class TestOtherStores:
    def make(self, folder: Path, *names: str) -> None:
        """Stores that were last used in this order."""
        for second, name in enumerate(names):
            with VectorStore(folder, name * 64) as store:
                add(store, "one")
            os.utime(folder / (name * 16), ns=(0, second * 10**9))

    def stores(self, folder: Path) -> list[str]:
        return sorted(path.name[0] for path in folder.iterdir() if path.is_dir())

    def test_the_newest_two_are_kept(self, tmp_path: Path) -> None:
        self.make(tmp_path, "b", "d", "a", "c")
        with VectorStore(tmp_path, OTHER) as store:
            assert store.prune_others() == ["d" * 16, "b" * 16]
        assert self.stores(tmp_path) == ["a", "c", "f"]

    def test_opening_a_store_makes_it_new(self, tmp_path: Path) -> None:
        self.make(tmp_path, "b", "d", "a", "c")
        with VectorStore(tmp_path, "b" * 64):
            pass
        with VectorStore(tmp_path, OTHER) as store:
            assert store.prune_others() == ["a" * 16, "d" * 16]

    def test_one_that_is_open_elsewhere_stays(self, tmp_path: Path) -> None:
        self.make(tmp_path, "b", "d", "a", "c")
        with VectorStore(tmp_path, "d" * 64) as other:
            os.utime(tmp_path / ("d" * 16), ns=(0, 0))
            with VectorStore(tmp_path, OTHER) as store:
                assert store.prune_others() == ["b" * 16]
            assert known_texts(other) == ["one"]

    def test_what_a_kill_left_of_one_that_was_dropped_goes(self, tmp_path: Path) -> None:
        (tmp_path / "aaaa.removed").mkdir()
        (tmp_path / "aaaa.removed" / "0.rows").write_bytes(b"1234")
        with VectorStore(tmp_path, OTHER) as store:
            assert store.prune_others() == []
        assert self.stores(tmp_path) == ["f"]
