"""kill -9 while an index is built: the next build goes on and gives the same results."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag.params import IndexParams
from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.embeddings import Embeddings, write_embeddings
from rag.retrieval.index import Hits, index_name, open_index, publish_index
from rag.retrieval.index_check import verify_index
from tests.retrieval.index_data import WORDS, make_index_data

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
POINTS, BATCH, FLUSHED = 20_000, 500, 8192
PARAMS = IndexParams(upsert_batch=BATCH)

PUBLISH = """
import os, signal, sys
from pathlib import Path
from rag.params import IndexParams
from rag.retrieval import index_edge
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.index import publish_index

folder, where = Path(sys.argv[1]), sys.argv[2]
index_edge._FLUSH_POINTS = 8192  # so that a small build has some
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
batches = 0
def progress(count):
    global batches
    batches += 1
    if where == f"batch {batches}":
        kill()
if where == "finish":
    index_edge.EdgeIndex.finish = kill
if where == "seal":
    index_edge.write_seal = kill
if where == "rename":
    index_edge.Path.rename = kill
publish_index(IndexParams(upsert_batch=500), folder / "index", read_embeddings(folder / "embed"),
              folder / "chunks.parquet", progress=progress)
"""


@pytest.fixture(scope="module")
def data() -> tuple[list[Chunk], Embeddings]:
    return make_index_data(POINTS)


@pytest.fixture
def folder(tmp_path: Path, data: tuple[list[Chunk], Embeddings]) -> Path:
    chunks, embeddings = data
    write_embeddings(embeddings, tmp_path / "embed")
    write_table(chunks, CHUNKS, tmp_path / "chunks.parquet")
    return tmp_path


def results(folder: Path, embeddings: Embeddings) -> tuple[list[Hits], list[Hits]]:
    """Dense and BM25 hits, those of equal score by id: the engine has no order for them."""
    index = open_index(PARAMS, folder, embeddings.facts)
    queries = np.random.default_rng(8).normal(size=(20, 16)).astype(np.float32)
    terms = [Bm25Encoder(4.0).query(f"{word} {number}") for number, word in enumerate(WORDS)]
    dense, sparse = index.search_dense(queries, 20), index.search_bm25(terms, POINTS)
    index.close()
    return tuple(
        [sorted(hits, key=lambda hit: (-hit[1], hit[0])) for hits in found]
        for found in (dense, sparse)
    )  # type: ignore[return-value]


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, data: tuple[list[Chunk], Embeddings]
) -> tuple[list[Hits], list[Hits]]:
    chunks, embeddings = data
    folder = tmp_path_factory.mktemp("undisturbed")
    publish_index(PARAMS, folder, embeddings, [chunks])
    return results(folder, embeddings)


def publish_until(folder: Path, where: str) -> int:
    command = [sys.executable, "-c", PUBLISH, str(folder), where]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    return done.returncode


@pytest.mark.parametrize(
    ("where", "goes_on_from"),
    [
        ("batch 3", 0),  # nothing was flushed: these batches were not finished
        ("batch 20", 8500),
        ("batch 40", 17_000),
        ("finish", 17_000),
        ("seal", 17_000),
        ("rename", 17_000),
    ],
)
def test_a_killed_build_goes_on_and_gives_the_same_results(
    folder: Path,
    data: tuple[list[Chunk], Embeddings],
    undisturbed: tuple[list[Hits], list[Hits]],
    where: str,
    goes_on_from: int,
) -> None:
    _, embeddings = data
    assert publish_until(folder, where) == -signal.SIGKILL
    name = index_name(PARAMS, embeddings.facts)
    assert not (folder / "index" / name).exists()
    state = json.loads((folder / "index" / f"{name}.tmp" / "progress.json").read_text())
    assert state["done"] == goes_on_from

    counts: list[int] = []
    publish_index(
        PARAMS,
        folder / "index",
        embeddings,
        folder / "chunks.parquet",
        progress=counts.append,
    )
    if goes_on_from:
        assert counts[0] == goes_on_from
    assert sum(counts) == POINTS
    assert len(counts) == (POINTS - goes_on_from) // BATCH + (1 if goes_on_from else 0)
    assert [path.name for path in (folder / "index").iterdir()] == [name]
    assert results(folder / "index", embeddings) == undisturbed
    index = open_index(PARAMS, folder / "index", embeddings.facts)
    assert verify_index(index, embeddings).problems == ()
    index.close()


def test_a_build_that_is_killed_again_and_again_comes_to_an_end(
    folder: Path,
    data: tuple[list[Chunk], Embeddings],
    undisturbed: tuple[list[Hits], list[Hits]],
) -> None:
    for where in ("batch 19", "batch 2", "batch 20", "finish"):
        assert publish_until(folder, where) == -signal.SIGKILL
    assert publish_until(folder, "nowhere") == 0
    assert results(folder / "index", data[1]) == undisturbed


@pytest.mark.parametrize("harm", ["other vectors", "a file less", "half a record"])
def test_a_half_built_index_that_does_not_fit_is_begun_anew(
    folder: Path,
    data: tuple[list[Chunk], Embeddings],
    undisturbed: tuple[list[Hits], list[Hits]],
    harm: str,
) -> None:
    _, embeddings = data
    assert publish_until(folder, "batch 20") == -signal.SIGKILL
    building = folder / "index" / f"{index_name(PARAMS, embeddings.facts)}.tmp"
    record = building / "progress.json"
    if harm == "other vectors":
        record.write_text(record.read_text().replace(embeddings.facts.fingerprint, "f" * 64))
    elif harm == "half a record":
        record.write_text(record.read_text()[:20])
    else:
        next(building.rglob("segment.json")).unlink()
    counts: list[int] = []
    publish_index(
        PARAMS, folder / "index", embeddings, folder / "chunks.parquet", progress=counts.append
    )
    assert counts == [BATCH] * (POINTS // BATCH)
    assert results(folder / "index", embeddings) == undisturbed
