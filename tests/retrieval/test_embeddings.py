"""rag/retrieval/embeddings.py: the embed stage's files, and what their fingerprint hangs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.errors import IndexMismatchError
from rag.records import Chunk
from rag.retrieval.embeddings import Embeddings, make_embeddings, read_embeddings, write_embeddings

COMMAND = "run: dvc repro --force embed"


@pytest.fixture
def folder(tmp_path: Path, embeddings: Embeddings) -> Path:
    write_embeddings(embeddings, tmp_path / "embed")
    return tmp_path / "embed"


def test_what_is_written_is_read_without_loading_the_matrix(
    folder: Path, embeddings: Embeddings
) -> None:
    found = read_embeddings(folder)
    assert isinstance(found.vectors, np.memmap)
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, embeddings.vectors)
    empty = np.empty((0, 0), dtype=np.float32)
    assert replace(found, vectors=empty) == replace(embeddings, vectors=empty)


def test_the_average_is_of_the_tokens_counted(embeddings: Embeddings) -> None:
    assert embeddings.average_tokens == 2.4  # (3 + 2 + 3 + 2 + 2) / 5


def test_equal_embeddings_are_equal_files(
    folder: Path, tmp_path: Path, embeddings: Embeddings
) -> None:
    write_embeddings(embeddings, tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert len(list(folder.iterdir())) == 3


def test_the_fingerprint_changes_with_encoder_ids_and_order(
    chunks: list[Chunk], embeddings: Embeddings
) -> None:
    def fingerprint(changed: list[Chunk], encoder: str = "an encoder") -> str:
        return make_embeddings(changed, embeddings.vectors, encoder).fingerprint

    assert fingerprint(chunks) == embeddings.fingerprint
    others = [fingerprint(chunks, "another encoder"), fingerprint(chunks[::-1])]
    others += [
        fingerprint([*chunks[:i], replace(chunks[i], chunk_id="f" * 16), *chunks[i + 1 :]])
        for i in range(len(chunks))
    ]
    others.append(fingerprint([replace(chunk, token_count=9) for chunk in chunks]))
    assert len({*others, embeddings.fingerprint}) == len(others) + 1


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


def test_files_of_different_runs_are_refused(
    folder: Path, chunks: list[Chunk], embeddings: Embeddings, tmp_path: Path
) -> None:
    fewer = make_embeddings(chunks[:3], embeddings.vectors[:3], "an encoder")
    write_embeddings(fewer, tmp_path / "fewer")
    (tmp_path / "fewer" / "vectors.npy").replace(folder / "vectors.npy")
    with pytest.raises(IndexMismatchError, match=rf"5 ids.*\(3, 2\), expected \(5, 2\); {COMMAND}"):
        read_embeddings(folder)
