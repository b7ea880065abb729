"""The narrow interface of rag/retrieval/index.py over both engines, against numpy and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import InputError
from rag.params import IndexParams
from rag.records import Chunk
from rag.retrieval.bm25 import Bm25Encoder, SparseVector
from rag.retrieval.embeddings import EmbeddingFacts, Embeddings
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.index import BuildPlan, Seal, VectorIndex, build_plan
from rag.retrieval.index_connection import connect
from rag.retrieval.index_edge import EdgeIndex
from rag.retrieval.index_payload import payload_of
from rag.retrieval.index_server import ServerIndex
from tests.retrieval.index_data import make_chunks, make_vectors

AVERAGE = 2.4  # terms of the five chunks: (3 + 2 + 3 + 2 + 2) / 5
Reopen = Callable[..., VectorIndex]


def plan(dimension: int = 2, count: int = 5, **how: Any) -> BuildPlan:
    facts = EmbeddingFacts("0123456789abcdef" * 4, "encoder", count, dimension, {})
    return build_plan(IndexParams(**how), facts)


SEAL = Seal(plan().to_json(), AVERAGE, None)


pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]


@pytest.fixture(params=["edge", "server"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens one and the same index anew at each call: one folder, or one client's collection."""
    opened: list[VectorIndex] = []
    client = connect(":memory:", None)

    def open_one(**how: Any) -> VectorIndex:
        params = IndexParams(**how)
        if request.param == "edge":
            opened.append(EdgeIndex(tmp_path / "name", params))
        else:
            opened.append(ServerIndex(client, "name", params))
        return opened[-1]

    yield open_one
    for index in opened:
        index.close()


def sparse(chunks: list[Chunk], average: float = AVERAGE) -> list[SparseVector]:
    return list(Bm25Encoder(average).passages(chunk.text for chunk in chunks))


def numbers(names: Sequence[str]) -> np.ndarray:
    return np.array([int(name, 16) for name in names], dtype=np.uint64)


def fill(index: VectorIndex, ids: np.ndarray, vectors: FloatMatrix, **how: Any) -> None:
    """Begins an index of points that have one word and an empty payload each."""
    index.begin(plan(vectors.shape[1], len(ids), **how))
    words = Bm25Encoder(1.0)
    terms = [words.passage(f"word{i}") for i in range(len(ids))]
    index.upsert(ids, vectors, terms, [{}] * len(ids))


@pytest.fixture
def index(reopen: Reopen, chunks: list[Chunk], embeddings: Embeddings) -> VectorIndex:
    """Five chunks in two batches, not sealed."""
    index = reopen()
    assert index.begin(plan()) == 0
    terms = sparse(chunks)
    for start, stop in ((0, 3), (3, 5)):
        index.upsert(
            embeddings.ids[start:stop],
            embeddings.vectors[start:stop],
            terms[start:stop],
            [payload_of(chunk) for chunk in chunks[start:stop]],
        )
    return index


def unit(degrees: float) -> FloatMatrix:
    radians = math.radians(degrees)
    return np.array([[math.cos(radians), math.sin(radians)]], dtype=np.float32)


class TestVectorIndex:
    def test_dense_search_is_the_dot_product(
        self, index: VectorIndex, embeddings: Embeddings
    ) -> None:
        """Chunks lie at 20, 40 .. 100 degrees; a query at 85 is nearest to 80, then 100, 60 .."""
        [found] = index.search_dense(unit(85), 5)
        assert [chunk_id[-1] for chunk_id, _ in found] == ["4", "5", "3", "2", "1"]
        expected = [math.cos(math.radians(difference)) for difference in (5, 15, 25, 45, 65)]
        assert [score for _, score in found] == pytest.approx(expected, abs=1e-6)

    def test_a_batch_of_queries_is_answered_in_order(self, index: VectorIndex) -> None:
        found = index.search_dense(np.concatenate([unit(85), unit(0), unit(41)]), 1)
        assert [hits[0][0][-1] for hits in found] == ["4", "1", "2"]
        assert [len(hits) for hits in found] == [1, 1, 1]
        assert index.search_dense(unit(0)[:0], 3) == []
        assert index.search_bm25([], 3) == []

    def test_bm25_search_ranks_by_idf_times_tf(self, index: VectorIndex) -> None:
        """ "ferry" is in three of five chunks, "petrel" in one; lengths 3, 2, 3; average 2.4."""
        [found] = index.search_bm25([Bm25Encoder(2.4).query("petrel ferry")], 5)
        common = math.log(1 + (5 - 3 + 0.5) / (3 + 0.5))
        rare = math.log(1 + (5 - 1 + 0.5) / (1 + 0.5))
        short = 0.9 * (0.25 + 0.75 * 2 / 2.4)
        long = 0.9 * (0.25 + 0.75 * 3 / 2.4)
        expected = {
            "1": rare * 3.8 / (2 + long) + common * 1.9 / (1 + long),
            "2": common * 1.9 / (1 + short),
            "3": common * 1.9 / (1 + long),
        }
        assert [chunk_id[-1] for chunk_id, _ in found] == ["1", "2", "3"]
        assert [score for _, score in found] == pytest.approx(list(expected.values()), rel=1e-5)

    def test_a_term_that_is_nowhere_finds_nothing(self, index: VectorIndex) -> None:
        bm25 = Bm25Encoder(2.4)
        assert index.search_bm25([bm25.query("submarine"), bm25.query("")], 5) == [[], []]

    def test_an_upsert_can_be_repeated_and_replaces(
        self, index: VectorIndex, chunks: list[Chunk], embeddings: Embeddings
    ) -> None:
        terms = sparse(chunks)
        payloads = [payload_of(chunk) for chunk in chunks]
        index.upsert(embeddings.ids, embeddings.vectors, terms, payloads)
        assert index.count() == 5
        index.upsert(embeddings.ids[:1], unit(85), terms[:1], payloads[3:4])
        assert index.count() == 5
        [[(first, _)]] = index.search_dense(unit(85), 1)
        assert first == chunks[0].chunk_id
        assert index.passages([first])[first].text == chunks[3].text

    def test_what_is_deleted_is_not_found(self, index: VectorIndex, chunks: list[Chunk]) -> None:
        index.delete([chunk.chunk_id for chunk in chunks[3:]])
        assert index.count() == 3
        [found] = index.search_dense(unit(85), 5)
        assert [chunk_id[-1] for chunk_id, _ in found] == ["3", "2", "1"]
        assert index.search_bm25([Bm25Encoder(2.4).query("gull")], 5) == [[]]

    def test_vectors_and_passages_come_back_by_id(
        self, index: VectorIndex, chunks: list[Chunk], embeddings: Embeddings
    ) -> None:
        names = [chunks[2].chunk_id, chunks[0].chunk_id]
        found = index.vectors([*names, "f" * 15])
        assert set(found) == set(names)
        for row in (0, 2):
            np.testing.assert_allclose(found[chunks[row].chunk_id], embeddings.vectors[row], 1e-6)
        passages = index.passages([*names, "f" * 15])
        assert {name: passage.text for name, passage in passages.items()} == {
            chunks[row].chunk_id: chunks[row].text for row in (0, 2)
        }
        assert index.vectors([]) == index.passages([]) == {}

    def test_large_ids_survive(self, reopen: Reopen) -> None:
        index = reopen()
        ids = ["fffffffffffffffe", "8000000000000000", "0000000000000000"]
        fill(index, numbers(ids), np.concatenate([unit(0), unit(40), unit(80)]))
        assert [chunk_id for chunk_id, _ in index.search_dense(unit(0), 3)[0]] == ids
        assert set(index.vectors(ids)) == set(ids)
        assert np.concatenate(list(index.ids())).tolist() == sorted(int(name, 16) for name in ids)

    def test_a_sealed_index_is_complete_and_the_seal_is_no_passage(
        self, index: VectorIndex, reopen: Reopen
    ) -> None:
        assert reopen().sealed() is None
        index.finish()
        index.seal(SEAL)
        found = reopen()
        assert found.sealed() == SEAL
        assert found.half_built() is None
        assert found.count() == len(np.concatenate(list(found.ids()))) == 5
        assert len(found.search_dense(unit(85), 10)[0]) == 5
        assert len(found.search_bm25([Bm25Encoder(2.4).query("ferry")], 10)[0]) == 3

    def test_the_seal_does_not_change_a_score(self, index: VectorIndex, reopen: Reopen) -> None:
        query = [Bm25Encoder(2.4).query("petrel ferry gull")]
        before = index.search_bm25(query, 5)
        index.finish()
        index.seal(SEAL)
        after = reopen().search_bm25(query, 5)
        assert [dict(hits) for hits in after] == [pytest.approx(dict(hits)) for hits in before]

    def test_a_build_of_another_plan_takes_the_place_of_an_unfinished_one(
        self, index: VectorIndex, reopen: Reopen
    ) -> None:
        index.checkpoint(5)
        index.close() if isinstance(index, EdgeIndex) else None
        again = reopen()
        assert again.half_built() is not None
        assert again.begin(plan(count=6)) == 0
        assert again.count() == 0

    def test_a_dropped_index_is_gone(self, index: VectorIndex, reopen: Reopen) -> None:
        index.finish()
        index.seal(SEAL)
        reopen().drop()
        assert reopen().sealed() is None
        reopen().drop()


@pytest.fixture
def filtered(reopen: Reopen) -> VectorIndex:
    """Sixty chunks of make_chunks, sealed."""
    chunks, vectors = make_chunks(60), make_vectors(60)
    index = reopen()
    index.begin(plan(16, 60))
    ids = numbers([chunk.chunk_id for chunk in chunks])
    index.upsert(ids, vectors, sparse(chunks), [payload_of(chunk) for chunk in chunks])
    index.finish()
    index.seal(Seal(plan(16, 60).to_json(), 4.0, None))
    return reopen()


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"language": "sv"}, range(1, 60, 3)),
        ({"language": ["sv", "zh"]}, [row for row in range(60) if row % 3]),
        ({"document_id": "d7"}, [14, 15]),
        ({"source": "a.md", "language": "en"}, range(0, 60, 6)),
        ({"metadata.year": "1963"}, range(3, 60, 5)),
        (
            {"metadata.tags": "odd", "metadata.year": ["1960", "1961"]},
            [1, 5, 11, 15, 21, 25, 31, 35, 41, 45, 51, 55],
        ),
        ({"language": "da"}, []),
        ({}, range(60)),
    ],
)
def test_a_filter_leaves_what_matches_all_of_it(
    filtered: VectorIndex, where: dict[str, Any], rows: Sequence[int]
) -> None:
    """Chunk i has language i mod 3, source i mod 2, year 1960 + i mod 5, document i // 2."""
    chunks, vectors = make_chunks(60), make_vectors(60)
    row_of = {chunk.chunk_id: row for row, chunk in enumerate(chunks)}
    [found] = filtered.search_dense(vectors[:1], 60, where)
    places = [row_of[name] for name, _ in found]
    assert sorted(places) == list(rows)
    assert [score for _, score in found] == pytest.approx(
        sorted((vectors[list(rows)] @ vectors[0]).tolist(), reverse=True), abs=1e-5
    )
    term = Bm25Encoder(4.0).query(" ".join(str(row) for row in range(60)))
    [by_terms] = filtered.search_bm25([term], 60, where)
    assert {name for name, _ in by_terms} == {name for name, _ in found}


def test_a_field_that_is_not_stored_cannot_be_filtered(filtered: VectorIndex) -> None:
    with pytest.raises(InputError, match="'title' cannot be filtered"):
        filtered.search_dense(make_vectors(1), 3, {"title": "x"})


def test_search_is_exact_among_many(reopen: Reopen) -> None:
    """No approximate graph: the ten nearest of 2,000 random vectors are numpy's."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(2000, 32)).astype(np.float32)
    ids = np.arange(2000, dtype=np.uint64)
    index = reopen()
    fill(index, ids, vectors)
    index.finish()
    index.seal(SEAL)
    queries = rng.normal(size=(300, 32)).astype(np.float32)
    found = reopen().search_dense(queries, 10)
    assert len(found) == 300
    for scores, hits in zip(queries @ vectors.T, found, strict=True):
        nearest = np.argsort(-scores)[:10]
        assert [chunk_id for chunk_id, _ in hits] == [f"{i:016x}" for i in nearest]
        assert [score for _, score in hits] == pytest.approx(scores[nearest].tolist(), rel=1e-4)
