"""publish_index and open_index on Edge: one good index, or a message that says what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.errors import IndexMismatchError
from rag.params import IndexParams
from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.embeddings import Embeddings, write_embeddings
from rag.retrieval.index import open_index, publish_index
from rag.retrieval.index_edge import EdgeIndex

ROOT = Path(__file__).resolve().parents[2]
PARAMS = IndexParams(upsert_batch=2)
Harm = Callable[[Path], None]


@pytest.fixture
def published(tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]) -> Path:
    """The folder of indexes, with that of the five chunks in it."""
    folder = tmp_path / "index"
    assert publish_index(PARAMS, folder, embeddings, chunks) == embeddings.fingerprint
    return folder


def shard(folder: Path, embeddings: Embeddings) -> Path:
    return folder / embeddings.fingerprint[:16]


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_good(folder: Path, embeddings: Embeddings) -> None:
    """The index answers as numpy does, and nothing else lies beside it."""
    index = open_index(PARAMS, folder, embeddings)
    found = index.search_dense(embeddings.vectors, 1)
    index.close()
    assert [hits[0][0] for hits in found] == list(embeddings.ids)
    assert [path.name for path in folder.iterdir()] == [embeddings.fingerprint[:16]]


def test_a_published_index_is_found_and_named_after_its_fingerprint(
    published: Path, embeddings: Embeddings
) -> None:
    assert_good(published, embeddings)


def test_publishing_again_and_reading_change_no_file(
    published: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    before = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    assert_good(published, embeddings)
    publish_index(PARAMS, published, embeddings, chunks)
    after = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    assert after == before


def test_other_vectors_are_another_index(
    published: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    other = replace(embeddings, fingerprint="f" * 64)
    publish_index(PARAMS, published, other, chunks)
    assert len(list(published.iterdir())) == 2
    open_index(PARAMS, published, embeddings).close()
    open_index(PARAMS, published, other).close()


def one_segment(folder: Path) -> Path:
    return next(path for path in (folder / "segments").iterdir() if path.is_dir())


def cut_short(folder: Path) -> None:
    vectors = next(folder.rglob("chunk_0.mmap"))
    vectors.write_bytes(vectors.read_bytes()[: vectors.stat().st_size // 2])


@pytest.mark.parametrize(
    "harm",
    [
        shutil.rmtree,
        lambda folder: (folder / "sealed.json").unlink(),
        lambda folder: (folder / "sealed.json").write_text('{"finger'),
        lambda folder: shutil.rmtree(one_segment(folder)),
        lambda folder: next(folder.rglob("segment.json")).unlink(),
        cut_short,
    ],
    ids=["missing", "unsealed", "half a seal", "no segment", "a file less", "cut short"],
)
def test_a_missing_or_partial_index_is_refused_and_built_again(
    published: Path, embeddings: Embeddings, chunks: list[Chunk], harm: Harm
) -> None:
    harm(shard(published, embeddings))
    with pytest.raises(IndexMismatchError, match="is missing or incomplete; run: ragloop run"):
        open_index(PARAMS, published, embeddings)
    publish_index(PARAMS, published, embeddings, chunks)
    assert_good(published, embeddings)


def build(folder: Path, ids: Sequence[str], vectors: np.ndarray, fingerprint: str) -> None:
    index = EdgeIndex(folder)
    index.create(2)
    index.upsert(ids, vectors, [Bm25Encoder(1.0).passage("ferry")] * len(ids))
    index.seal(fingerprint)
    index.close()


def test_a_foreign_index_is_refused(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    """Same name, other fingerprint: a folder that was renamed by hand."""
    build(shard(tmp_path, embeddings), embeddings.ids, embeddings.vectors, "f" * 64)
    with pytest.raises(IndexMismatchError, match="holds ffffffffffffffff; run: ragloop run"):
        open_index(PARAMS, tmp_path, embeddings)
    publish_index(PARAMS, tmp_path, embeddings, chunks)
    assert_good(tmp_path, embeddings)


@pytest.mark.parametrize("count", [0, 4])
def test_an_index_with_fewer_points_is_refused(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk], count: int
) -> None:
    folder = shard(tmp_path, embeddings)
    build(folder, embeddings.ids[:count], embeddings.vectors[:count], embeddings.fingerprint)
    message = f"{folder} holds {count} points, expected 5; delete it and run: ragloop run"
    with pytest.raises(IndexMismatchError, match=message):
        open_index(PARAMS, tmp_path, embeddings)
    with pytest.raises(IndexMismatchError, match=message):
        publish_index(PARAMS, tmp_path, embeddings, chunks)


def test_an_index_of_other_vectors_is_refused(tmp_path: Path, embeddings: Embeddings) -> None:
    """As many points under the same ids: only a canary can tell."""
    folder = shard(tmp_path, embeddings)
    turned = embeddings.vectors[:, ::-1].copy()
    build(folder, embeddings.ids, turned, embeddings.fingerprint)
    with pytest.raises(IndexMismatchError, match=r"canary 0{15}1 differs.*delete it and run: rag"):
        open_index(PARAMS, tmp_path, embeddings)


def test_a_build_that_was_killed_does_not_disturb_the_next(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    """What a process that is no more left behind is taken away, a living one's is not."""
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    name = embeddings.fingerprint[:16]
    dead = tmp_path / f"{name}.{finished.pid}.tmp"
    living = tmp_path / f"{name}.1.tmp"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "half").write_text("built")
    publish_index(PARAMS, tmp_path, embeddings, chunks)
    assert not dead.exists()
    assert (living / "half").read_text() == "built"
    open_index(PARAMS, tmp_path, embeddings).close()


def start(code: str, folder: Path, count: int) -> list[tuple[int, str]]:
    """Exit code and output of `count` processes that begin together."""
    prelude = f"""
import sys, time
from pathlib import Path
import qdrant_edge
from rag.params import IndexParams
from rag.records import read_chunks
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.index import open_index, publish_index
folder = Path({str(folder)!r})
embeddings, chunks = read_embeddings(folder / "embed"), read_chunks(folder / "chunks.parquet")
params = IndexParams()
print("ready", flush=True)
sys.stdin.readline()
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", prelude + code],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[0]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    return [(process.returncode, out) for process, out in zip(processes, outputs, strict=True)]


@pytest.fixture
def on_disk(tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]) -> Path:
    write_embeddings(embeddings, tmp_path / "embed")
    write_table(chunks, CHUNKS, tmp_path / "chunks.parquet")
    return tmp_path


@pytest.mark.integration
def test_several_processes_read_one_index_at_the_same_time(
    on_disk: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    """Each keeps it open until all have it open."""
    publish_index(PARAMS, on_disk / "index", embeddings, chunks)
    code = """
import os
index = open_index(params, folder / "index", embeddings)
(folder / f"open-{os.getpid()}").touch()
deadline = time.monotonic() + 30
while len(list(folder.glob("open-*"))) < 3 and time.monotonic() < deadline:
    time.sleep(0.01)
print(len(list(folder.glob("open-*"))), [hits[0][0][-1] for hits in
      index.search_dense(embeddings.vectors, 1)])
index.close()
"""
    assert start(code, on_disk, 3) == [(0, "3 ['1', '2', '3', '4', '5']\n")] * 3
    assert_good(on_disk / "index", embeddings)


@pytest.mark.integration
def test_processes_that_publish_at_once_leave_one_good_index(
    on_disk: Path, embeddings: Embeddings
) -> None:
    """Each opens what it published: no one may take away what another has put in place."""
    code = """
for _ in range(10):
    publish_index(params, folder / "index", embeddings, chunks)
    open_index(params, folder / "index", embeddings).close()
print("published")
"""
    assert start(code, on_disk, 3) == [(0, "published\n")] * 3
    assert_good(on_disk / "index", embeddings)
