"""rag/retrieval/embeddings.py: the embed stage's files, and what their fingerprint hangs on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rag.errors import IndexMismatchError
from rag.records import Chunk
from rag.retrieval.embeddings import (
    Embeddings,
    make_embeddings,
    read_embeddings,
    read_facts,
    stream_embeddings,
    to_chunk_id,
    to_number,
    write_embeddings,
)

COMMAND = "run: dvc repro --force embed"


@pytest.fixture
def folder(tmp_path: Path, embeddings: Embeddings) -> Path:
    write_embeddings(embeddings, tmp_path / "embed")
    return tmp_path / "embed"


def test_what_is_written_is_read_without_loading_the_matrix(
    folder: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    found = read_embeddings(folder)
    assert isinstance(found.vectors, np.memmap)
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, embeddings.vectors)
    np.testing.assert_array_equal(found.ids, embeddings.ids)
    assert found.facts == embeddings.facts == read_facts(folder)
    assert [to_chunk_id(number) for number in found.ids] == [chunk.chunk_id for chunk in chunks]


def test_the_files_are_what_other_tools_read(folder: Path, embeddings: Embeddings) -> None:
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), embeddings.vectors)
    assert pq.read_table(folder / "ids.parquet").to_pydict() == {"chunk_id": [1, 2, 3, 4, 5]}


def test_a_chunk_id_is_the_same_after_it_was_a_number() -> None:
    for chunk_id in ("0" * 16, "0000000000000001", "00ff00ff00ff00ff", "f" * 16):
        assert to_chunk_id(np.uint64(to_number(chunk_id))) == chunk_id


def test_canaries_are_exact_and_evenly_spaced(folder: Path, embeddings: Embeddings) -> None:
    canaries = read_facts(folder).canaries
    assert [int(chunk_id, 16) for chunk_id in canaries] == [1, 2, 3, 4]
    for row, canary in enumerate(canaries.values()):
        np.testing.assert_array_equal(np.float32(canary), embeddings.vectors[row])
    many = make_embeddings(
        [to_chunk_id(number) for number in range(41)], np.eye(41, dtype=np.float32), "an encoder"
    )
    assert [int(chunk_id, 16) for chunk_id in many.facts.canaries] == [0, 10, 20, 30]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_blocks_of_any_size_give_equal_files(
    folder: Path, tmp_path: Path, embeddings: Embeddings, rows: int
) -> None:
    blocks = (vectors for _, vectors in embeddings.blocks(rows))
    again = tmp_path / "again"
    facts = stream_embeddings(again, embeddings.ids, blocks, 2, "an encoder")
    assert facts == embeddings.facts
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    assert len(list(folder.iterdir())) == 3


def test_no_chunks_are_embeddings_too(tmp_path: Path) -> None:
    empty = make_embeddings([], np.empty((0, 2), dtype=np.float32), "an encoder")
    write_embeddings(empty, tmp_path)
    found = read_embeddings(tmp_path)
    assert found.vectors.shape == (0, 2)
    assert found.facts == empty.facts
    assert found.facts.canaries == {}


def test_the_fingerprint_changes_with_encoder_ids_and_order(embeddings: Embeddings) -> None:
    ids = [to_chunk_id(number) for number in embeddings.ids]

    def fingerprint(changed: list[str], encoder: str = "an encoder") -> str:
        vectors = np.zeros((len(changed), 2), dtype=np.float32)
        return make_embeddings(changed, vectors, encoder).facts.fingerprint

    assert fingerprint(ids) == embeddings.facts.fingerprint
    others = [fingerprint(ids, "another encoder"), fingerprint(ids[::-1]), fingerprint(ids[:-1])]
    others += [fingerprint([*ids[:i], "f" * 16, *ids[i + 1 :]]) for i in range(len(ids))]
    assert len({*others, embeddings.facts.fingerprint}) == len(others) + 1


def test_blocks_that_do_not_fit_the_ids_leave_nothing_that_can_be_read(
    folder: Path, embeddings: Embeddings
) -> None:
    """Over good files of an earlier run, as a run that is killed in the middle is."""
    with pytest.raises(ValueError, match="4 vectors for 5 ids"):
        stream_embeddings(folder, embeddings.ids, [embeddings.vectors[:4]], 2, "an encoder")
    with pytest.raises(IndexMismatchError, match=COMMAND):
        read_embeddings(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize("name", ["ids.parquet", "vectors.npy", "embeddings.json"])
@pytest.mark.parametrize("harm", [Path.unlink, cut])
def test_a_file_that_is_missing_or_cut_is_refused(
    folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(folder / name)
    with pytest.raises(IndexMismatchError, match=COMMAND) as error:
        read_embeddings(folder)
    assert "\n" not in str(error.value)


def test_facts_of_an_older_format_are_refused(folder: Path) -> None:
    path = folder / "embeddings.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "average_tokens": 2.4}))
    with pytest.raises(IndexMismatchError, match=COMMAND):
        read_facts(folder)
    path.write_text("[]")
    with pytest.raises(IndexMismatchError, match=COMMAND):
        read_facts(folder)


def test_files_of_different_runs_are_refused(
    folder: Path, embeddings: Embeddings, tmp_path: Path
) -> None:
    ids = [to_chunk_id(number) for number in embeddings.ids]
    fewer = make_embeddings(ids[:3], embeddings.vectors[:3], "an encoder")
    write_embeddings(fewer, tmp_path / "fewer")
    turned = make_embeddings(ids[::-1], embeddings.vectors, "an encoder")
    write_embeddings(turned, tmp_path / "turned")
    (tmp_path / "fewer" / "vectors.npy").replace(folder / "vectors.npy")
    with pytest.raises(IndexMismatchError, match=rf"5 ids.*\(3, 2\), expected \(5, 2\); {COMMAND}"):
        read_embeddings(folder)
    write_embeddings(embeddings, folder)
    (tmp_path / "turned" / "ids.parquet").replace(folder / "ids.parquet")
    with pytest.raises(IndexMismatchError, match=f"not those of fingerprint.*{COMMAND}"):
        read_embeddings(folder)
