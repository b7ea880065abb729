"""A sealed index as one file and back; files that are cut, altered or foreign are refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import IndexMismatchError
from rag.params import IndexParams
from rag.records import Chunk
from rag.retrieval.embeddings import Embeddings, make_embeddings
from rag.retrieval.index import index_name, open_index, publish_index
from rag.retrieval.index_check import verify_index
from rag.retrieval.index_removal import leftovers, local_indexes, remove_index
from rag.retrieval.index_seal import BuildLock
from rag.retrieval.index_snapshot import export_index, import_index

pytestmark = pytest.mark.integration

PARAMS = IndexParams()


@pytest.fixture
def folder(tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]) -> Path:
    publish_index(PARAMS, tmp_path / "index", embeddings, [chunks])
    return tmp_path / "index"


@pytest.fixture
def snapshot(folder: Path, embeddings: Embeddings) -> Path:
    file = folder.parent / "out" / "index.tar"
    assert export_index(PARAMS, folder, embeddings.facts, file) == file.stat().st_size
    assert [path.name for path in file.parent.iterdir()] == ["index.tar"]
    return file


def test_what_went_out_comes_in(
    folder: Path, snapshot: Path, embeddings: Embeddings, tmp_path: Path
) -> None:
    name = import_index(PARAMS, tmp_path / "other", embeddings.facts, snapshot)
    assert name == index_name(PARAMS, embeddings.facts)
    assert [path.name for path in (tmp_path / "other").iterdir()] == [name]
    for path in (folder / name).rglob("*"):
        if path.is_file():
            copied = tmp_path / "other" / name / path.relative_to(folder / name)
            assert copied.read_bytes() == path.read_bytes()
    index = open_index(PARAMS, tmp_path / "other", embeddings.facts)
    assert verify_index(index, embeddings).problems == ()
    index.close()


def test_it_takes_the_place_of_one_that_is_broken(
    folder: Path, snapshot: Path, embeddings: Embeddings
) -> None:
    next((folder / index_name(PARAMS, embeddings.facts)).rglob("segment.json")).unlink()
    import_index(PARAMS, folder, embeddings.facts, snapshot)
    open_index(PARAMS, folder, embeddings.facts).close()


def test_a_missing_index_is_not_exported(tmp_path: Path, embeddings: Embeddings) -> None:
    with pytest.raises(IndexMismatchError, match="missing or incomplete"):
        export_index(PARAMS, tmp_path / "index", embeddings.facts, tmp_path / "file.tar")
    assert not (tmp_path / "file.tar").exists()


def rewritten(file: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Writes the archive again with other contents; None leaves a member out."""
    with tarfile.open(file) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            new = change(name, content)
            if new is not None:
                head = tarfile.TarInfo(name)
                head.size = len(new)
                archive.addfile(head, io.BytesIO(new))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_byte(file: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("segment.json"):
            return content
        return content[:-1] + bytes([content[-1] ^ 1])

    rewritten(file, change)


def leave_one_out(file: Path) -> None:
    rewritten(file, lambda name, content: None if name.endswith("segment.json") else content)


def add_one(file: Path) -> None:
    rewritten(file, lambda _, content: content)  # not compressed, so that a member can be added
    with tarfile.open(file, "a") as archive:
        archive.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())


def no_manifest(file: Path) -> None:
    rewritten(file, lambda name, content: None if name == "manifest.json" else content)


@pytest.mark.parametrize(
    "harm",
    [
        cut,
        flip_a_byte,
        leave_one_out,
        add_one,
        no_manifest,
        Path.unlink,
        lambda file: file.write_text("no archive"),
    ],
    ids=["cut", "a byte", "one less", "one more", "no manifest", "no file", "no archive"],
)
def test_a_file_that_is_not_whole_is_refused_and_changes_nothing(
    snapshot: Path, embeddings: Embeddings, tmp_path: Path, harm: Callable[[Path], Any]
) -> None:
    harm(snapshot)
    with pytest.raises(IndexMismatchError, match=r"no whole snapshot .*ragloop index rebuild"):
        import_index(PARAMS, tmp_path / "other", embeddings.facts, snapshot)
    assert list((tmp_path / "other").iterdir()) == []
    assert not (tmp_path / "escaped").exists()


def test_a_snapshot_of_other_vectors_or_of_another_kind_is_refused(
    snapshot: Path, embeddings: Embeddings, chunks: list[Chunk], tmp_path: Path
) -> None:
    names = [chunk.chunk_id for chunk in chunks]
    other = make_embeddings(names, np.asarray(embeddings.vectors), "another encoder")
    with pytest.raises(IndexMismatchError, match=r"holds the vectors .*ragloop index rebuild"):
        import_index(PARAMS, tmp_path / "other", other.facts, snapshot)
    quantised = IndexParams(quantization="scalar")
    with pytest.raises(IndexMismatchError, match=r"'quantization': 'none'.*'scalar'"):
        import_index(quantised, tmp_path / "other", embeddings.facts, snapshot)
    assert list((tmp_path / "other").iterdir()) == []


def test_a_manifest_that_was_edited_to_fit_does_not_help(
    snapshot: Path, embeddings: Embeddings, chunks: list[Chunk], tmp_path: Path
) -> None:
    """The seal inside, and behind it the canaries, still say whose vectors they are."""
    names = [chunk.chunk_id for chunk in chunks]
    turned = np.asarray(embeddings.vectors)[:, ::-1].copy()
    other = make_embeddings(names, turned, "another encoder")

    def change(name: str, content: bytes) -> bytes:
        if name != "manifest.json":
            return content
        tree = json.loads(content)
        tree["plan"]["fingerprint"] = other.facts.fingerprint
        return json.dumps(tree).encode()

    rewritten(snapshot, change)
    with pytest.raises(IndexMismatchError, match="run: ragloop index rebuild"):
        import_index(PARAMS, tmp_path / "other", other.facts, snapshot)
    assert list((tmp_path / "other").iterdir()) == []


def test_what_is_being_built_is_neither_left_over_nor_removed(
    folder: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    kept = index_name(PARAMS, embeddings.facts)
    names = [chunk.chunk_id for chunk in chunks]
    old = make_embeddings(names, np.asarray(embeddings.vectors), "an old encoder")
    removed = publish_index(PARAMS, folder, old, [chunks])
    (folder / f"{'a' * 16}.tmp").mkdir()
    (folder / f"{'b' * 16}.tmp").mkdir()
    (folder / "notes").mkdir()
    lock = BuildLock(folder / f"{'b' * 16}.lock")
    lock.hold()
    assert list(local_indexes(folder)) == sorted([kept, removed])
    assert leftovers(folder, set()) == {f"{'a' * 16}.tmp": 0}
    assert leftovers(folder, {"a" * 16}) == {}, "the next build goes on with it"
    for name in (removed, f"{'a' * 16}.tmp"):
        assert remove_index(folder, name)
    assert not remove_index(folder, f"{'b' * 16}.tmp")
    assert {path.name for path in folder.iterdir()} == {
        kept,
        "notes",
        f"{'b' * 16}.tmp",
        f"{'b' * 16}.lock",
    }
    lock.release()
    open_index(PARAMS, folder, embeddings.facts).close()
