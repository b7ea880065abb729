"""publish_index and open_index on Edge: one good index, or a message that says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import IndexMismatchError
from rag.params import IndexParams
from rag.records import CHUNKS, Chunk, write_table
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.embeddings import Embeddings, make_embeddings
from rag.retrieval.index import Seal, build_plan, index_name, open_index, publish_index
from rag.retrieval.index_edge import EdgeIndex

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
PARAMS = IndexParams(upsert_batch=2)
REBUILD = "run: ragloop index rebuild"
Harm = Callable[[Path], None]


@pytest.fixture
def published(tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]) -> Path:
    """The folder of indexes, with that of the five chunks in it."""
    folder = tmp_path / "index"
    name = publish_index(PARAMS, folder, embeddings, [chunks])
    assert name == index_name(PARAMS, embeddings.facts)
    return folder


def shard(folder: Path, embeddings: Embeddings) -> Path:
    return folder / index_name(PARAMS, embeddings.facts)


def assert_good(folder: Path, embeddings: Embeddings) -> None:
    """The index answers as numpy does, and nothing else lies beside it."""
    index = open_index(PARAMS, folder, embeddings.facts)
    found = index.search_dense(embeddings.vectors, 1)
    index.close()
    assert [int(hits[0][0], 16) for hits in found] == embeddings.ids.tolist()
    assert [path.name for path in folder.iterdir()] == [index_name(PARAMS, embeddings.facts)]


def test_a_published_index_is_found_and_named_after_its_fingerprint(
    published: Path, embeddings: Embeddings
) -> None:
    assert_good(published, embeddings)


def test_publishing_again_and_reading_change_no_file(
    published: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    before = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    assert_good(published, embeddings)
    publish_index(PARAMS, published, embeddings, [chunks])
    after = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    assert after == before


def test_other_vectors_are_another_index(
    published: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    other = make_embeddings(
        [chunk.chunk_id for chunk in chunks], embeddings.vectors, "another encoder"
    )
    publish_index(PARAMS, published, other, [chunks])
    assert len(list(published.iterdir())) == 2
    open_index(PARAMS, published, embeddings.facts).close()
    open_index(PARAMS, published, other.facts).close()


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
    with pytest.raises(IndexMismatchError, match=f"is missing or incomplete; {REBUILD}"):
        open_index(PARAMS, published, embeddings.facts)
    publish_index(PARAMS, published, embeddings, [chunks])
    assert_good(published, embeddings)


def build(
    folder: Path, ids: np.ndarray, vectors: np.ndarray, embeddings: Embeddings, fingerprint: str
) -> None:
    """An index with a seal that the points may belie."""
    plan = replace(build_plan(PARAMS, embeddings.facts), fingerprint=fingerprint)
    index = EdgeIndex(folder, PARAMS)
    index.begin(plan)
    index.upsert(ids, vectors, [Bm25Encoder(1.0).passage("ferry")] * len(ids), [{}] * len(ids))
    index.finish()
    index.seal(Seal(plan.to_json(), 1.0, None))
    index.close()


def test_a_foreign_index_is_refused(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    """Same name, other fingerprint: a folder that was renamed by hand."""
    folder = shard(tmp_path, embeddings)
    build(folder, embeddings.ids, embeddings.vectors, embeddings, "f" * 64)
    with pytest.raises(IndexMismatchError, match=rf"holds the vectors f{{16}} .*; {REBUILD}$"):
        open_index(PARAMS, tmp_path, embeddings.facts)
    publish_index(PARAMS, tmp_path, embeddings, [chunks])
    assert_good(tmp_path, embeddings)


@pytest.mark.parametrize("count", [0, 4])
def test_an_index_with_fewer_points_is_refused_until_it_is_rebuilt(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk], count: int
) -> None:
    folder = shard(tmp_path, embeddings)
    ids, vectors = embeddings.ids[:count], embeddings.vectors[:count]
    build(folder, ids, vectors, embeddings, embeddings.facts.fingerprint)
    message = f"{folder} holds {count} points, expected 5; {REBUILD}"
    with pytest.raises(IndexMismatchError, match=message):
        open_index(PARAMS, tmp_path, embeddings.facts)
    with pytest.raises(IndexMismatchError, match=message):
        publish_index(PARAMS, tmp_path, embeddings, [chunks])
    publish_index(PARAMS, tmp_path, embeddings, [chunks], rebuild=True)
    assert_good(tmp_path, embeddings)


def test_an_index_of_other_vectors_is_refused(tmp_path: Path, embeddings: Embeddings) -> None:
    """As many points under the same ids: only a canary can tell."""
    folder = shard(tmp_path, embeddings)
    turned = embeddings.vectors[:, ::-1].copy()
    build(folder, embeddings.ids, turned, embeddings, embeddings.facts.fingerprint)
    with pytest.raises(IndexMismatchError, match=rf"canary 0{{15}}1 differs.*; {REBUILD}"):
        open_index(PARAMS, tmp_path, embeddings.facts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda chunks: chunks[::-1], "chunks and embeddings differ after 0 rows"),
        (lambda chunks: chunks[:4], "4 chunks, but embeddings of 5"),
        (lambda chunks: [*chunks, replace(chunks[0], chunk_id="f" * 16)], "differ after 5 rows"),
    ],
    ids=["another order", "one less", "one more"],
)
def test_chunks_of_another_run_are_refused(
    tmp_path: Path,
    embeddings: Embeddings,
    chunks: list[Chunk],
    change: Callable[[list[Chunk]], list[Chunk]],
    message: str,
) -> None:
    with pytest.raises(IndexMismatchError, match=f"{message}.*; run: dvc repro embed"):
        publish_index(IndexParams(upsert_batch=5), tmp_path, embeddings, [change(chunks)])
    publish_index(PARAMS, tmp_path, embeddings, [chunks])
    assert_good(tmp_path, embeddings)


def test_an_iterator_is_refused_before_anything_is_built(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    with pytest.raises(TypeError, match="read twice"):
        publish_index(PARAMS, tmp_path / "index", embeddings, iter([chunks]))
    assert not list((tmp_path / "index").glob("*.tmp"))


def test_a_file_and_batches_in_memory_give_the_same_scores(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    """The mean length of BM25 is measured on the same texts in both."""
    write_table(chunks, CHUNKS, tmp_path / "chunks.parquet")
    query = [Bm25Encoder(1.0).query("petrel ferry gull")]
    found = []
    for folder, source in (("a", [chunks[:2], chunks[2:]]), ("b", tmp_path / "chunks.parquet")):
        publish_index(PARAMS, tmp_path / folder, embeddings, source)  # type: ignore[arg-type]
        index = open_index(PARAMS, tmp_path / folder, embeddings.facts)
        seal = index.sealed()
        assert seal is not None
        assert (seal.average_length, seal.recall) == (2.4, None)
        found.append(index.search_bm25(query, 5))
        index.close()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ({"search": "hnsw"}, "hnsw"),
        ({"quantization": "scalar", "oversampling": 2.0}, "exact, scalar, rescored x2"),
    ],
)
def test_what_a_search_that_is_not_exact_loses_is_said(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk], how: dict[str, Any], shown: str
) -> None:
    lines: list[str] = []
    params = IndexParams(**how)
    publish_index(params, tmp_path, embeddings, [chunks], say=lines.append)
    assert lines == [
        f"index search ({shown}) finds 100.0 % of the 10 nearest passages: "
        "0.0 points are lost against exact search"
    ]
    index = open_index(params, tmp_path, embeddings.facts)
    seal = index.sealed()
    index.close()
    assert seal is not None
    assert seal.recall == 1.0


def test_exact_search_has_nothing_to_say(
    tmp_path: Path, embeddings: Embeddings, chunks: list[Chunk]
) -> None:
    lines: list[str] = []
    counts: list[int] = []
    publish_index(PARAMS, tmp_path, embeddings, [chunks], say=lines.append, progress=counts.append)
    assert lines == []
    assert counts == [2, 2, 1]
