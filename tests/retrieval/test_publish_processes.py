"""Several processes at one Edge index: they read it together, and one of them builds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval.embeddings import Embeddings, write_embeddings
from rag.retrieval.index import publish_index
from rag.retrieval.index_seal import BuildLock
from tests.retrieval.test_publish import PARAMS, assert_good

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    first, second = BuildLock(tmp_path / "lock"), BuildLock(tmp_path / "lock")
    assert first.try_to_hold()
    assert not second.try_to_hold()
    first.release()
    assert not (tmp_path / "lock").exists()
    assert second.try_to_hold()
    second.release()


def start(code: str, folder: Path, count: int) -> list[tuple[int, str]]:
    """Exit code and output of `count` processes that begin together."""
    prelude = f"""
import sys, time
from pathlib import Path
import qdrant_edge
from rag.params import IndexParams
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.index import open_index, publish_index
folder = Path({str(folder)!r})
embeddings = read_embeddings(folder / "embed")
params = IndexParams()
chunks = folder / "chunks.parquet"
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


def test_several_processes_read_one_index_at_the_same_time(
    on_disk: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    """Each keeps it open until all have it open."""
    publish_index(PARAMS, on_disk / "index", embeddings, [chunks])
    code = """
import os
index = open_index(params, folder / "index", embeddings.facts)
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


def test_processes_that_publish_at_once_leave_one_good_index(
    on_disk: Path, embeddings: Embeddings
) -> None:
    """Each opens what it published: no one may take away what another has put in place."""
    code = """
for _ in range(10):
    publish_index(params, folder / "index", embeddings, chunks)
    open_index(params, folder / "index", embeddings.facts).close()
print("published")
"""
    assert start(code, on_disk, 3) == [(0, "published\n")] * 3
    assert_good(on_disk / "index", embeddings)
