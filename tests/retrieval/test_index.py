"""The narrow interface of rag/retrieval/index.py over both engines, against numpy and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rag.errors import RagError
from rag.records import Chunk
from rag.retrieval.bm25 import Bm25Encoder, SparseVector
from rag.retrieval.embeddings import Embeddings
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.index import VectorIndex, safe_url
from rag.retrieval.index_edge import EdgeIndex
from rag.retrieval.index_server import ServerIndex, connect

FINGERPRINT = "0123456789abcdef" * 4
Reopen = Callable[[], VectorIndex]


@pytest.fixture(params=["edge", "server"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens one and the same index anew at each call: one folder, or one client's collection."""
    opened: list[VectorIndex] = []
    client = connect(":memory:", None)

    def open_one() -> VectorIndex:
        edge = request.param == "edge"
        opened.append(EdgeIndex(tmp_path / "name") if edge else ServerIndex(client, "name"))
        return opened[-1]

    yield open_one
    for index in opened:
        index.close()


def sparse(chunks: list[Chunk], average: float) -> list[SparseVector]:
    bm25 = Bm25Encoder(average)
    return [bm25.passage(chunk.text) for chunk in chunks]


@pytest.fixture
def index(reopen: Reopen, chunks: list[Chunk], embeddings: Embeddings) -> VectorIndex:
    """Five chunks in two batches, not sealed."""
    index = reopen()
    index.create(2)
    terms = sparse(chunks, embeddings.average_tokens)
    for start, stop in ((0, 3), (3, 5)):
        ids = embeddings.ids[start:stop]
        index.upsert(ids, embeddings.vectors[start:stop], terms[start:stop])
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
        short = 1.2 * (0.25 + 0.75 * 2 / 2.4)
        long = 1.2 * (0.25 + 0.75 * 3 / 2.4)
        expected = {
            "1": rare * 4.4 / (2 + long) + common * 2.2 / (1 + long),
            "2": common * 2.2 / (1 + short),
            "3": common * 2.2 / (1 + long),
        }
        assert [chunk_id[-1] for chunk_id, _ in found] == ["1", "2", "3"]
        assert [score for _, score in found] == pytest.approx(list(expected.values()), rel=1e-5)

    def test_a_term_that_is_nowhere_finds_nothing(self, index: VectorIndex) -> None:
        bm25 = Bm25Encoder(2.4)
        assert index.search_bm25([bm25.query("submarine"), bm25.query("")], 5) == [[], []]

    def test_an_upsert_can_be_repeated_and_replaces(
        self, index: VectorIndex, chunks: list[Chunk], embeddings: Embeddings
    ) -> None:
        terms = sparse(chunks, embeddings.average_tokens)
        index.upsert(embeddings.ids, embeddings.vectors, terms)
        assert index.count() == 5
        index.upsert(embeddings.ids[:1], unit(85), terms[:1])
        assert index.count() == 5
        assert index.search_dense(unit(85), 1)[0][0][0] == embeddings.ids[0]

    def test_what_is_deleted_is_not_found(self, index: VectorIndex, embeddings: Embeddings) -> None:
        index.delete(embeddings.ids[3:])
        assert index.count() == 3
        [found] = index.search_dense(unit(85), 5)
        assert [chunk_id[-1] for chunk_id, _ in found] == ["3", "2", "1"]
        assert index.search_bm25([Bm25Encoder(2.4).query("gull")], 5) == [[]]

    def test_vectors_come_back_by_id(self, index: VectorIndex, embeddings: Embeddings) -> None:
        found = index.vectors([embeddings.ids[2], embeddings.ids[0], "f" * 15])
        assert set(found) == {embeddings.ids[0], embeddings.ids[2]}
        for row in (0, 2):
            np.testing.assert_allclose(found[embeddings.ids[row]], embeddings.vectors[row], 1e-6)

    def test_large_ids_survive(self, reopen: Reopen) -> None:
        index = reopen()
        index.create(2)
        ids = ["fffffffffffffffe", "8000000000000000", "0000000000000000"]
        index.upsert(ids, np.concatenate([unit(0), unit(40), unit(80)]), sparse_words(3))
        assert [chunk_id for chunk_id, _ in index.search_dense(unit(0), 3)[0]] == ids
        assert set(index.vectors(ids)) == set(ids)

    def test_a_sealed_index_is_complete_and_the_seal_is_no_passage(
        self, index: VectorIndex, reopen: Reopen
    ) -> None:
        assert reopen().sealed_fingerprint() is None
        index.seal(FINGERPRINT)
        found = reopen()
        assert found.sealed_fingerprint() == FINGERPRINT
        assert found.count() == 5
        assert len(found.search_dense(unit(85), 10)[0]) == 5
        assert len(found.search_bm25([Bm25Encoder(2.4).query("ferry")], 10)[0]) == 3

    def test_the_seal_does_not_change_a_score(self, index: VectorIndex, reopen: Reopen) -> None:
        query = [Bm25Encoder(2.4).query("petrel ferry gull")]
        before = index.search_bm25(query, 5)
        index.seal(FINGERPRINT)
        after = reopen().search_bm25(query, 5)
        assert [dict(hits) for hits in after] == [pytest.approx(dict(hits)) for hits in before]

    def test_create_takes_the_place_of_an_unfinished_build(
        self, index: VectorIndex, reopen: Reopen
    ) -> None:
        index.close() if isinstance(index, EdgeIndex) else None
        again = reopen()
        again.create(2)
        assert again.count() == 0

    def test_a_dropped_index_is_gone(self, index: VectorIndex, reopen: Reopen) -> None:
        index.seal(FINGERPRINT)
        reopen().drop()
        assert reopen().sealed_fingerprint() is None
        reopen().drop()


def sparse_words(count: int) -> list[SparseVector]:
    return [Bm25Encoder(1.0).passage(f"word{i}") for i in range(count)]


def test_search_is_exact_among_many(reopen: Reopen) -> None:
    """No approximate graph: the ten nearest of 2,000 random vectors are numpy's."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(2000, 32)).astype(np.float32)
    ids = [f"{i:016x}" for i in range(2000)]
    index = reopen()
    index.create(32)
    index.upsert(ids, vectors, sparse_words(1) * 2000)
    index.seal(FINGERPRINT)
    queries = rng.normal(size=(8, 32)).astype(np.float32)
    found = reopen().search_dense(queries, 10)
    for scores, hits in zip(queries @ vectors.T, found, strict=True):
        nearest = np.argsort(-scores)[:10]
        assert [chunk_id for chunk_id, _ in hits] == [ids[i] for i in nearest]
        assert [score for _, score in hits] == pytest.approx(scores[nearest].tolist(), rel=1e-4)


def test_a_server_that_does_not_answer_is_one_clear_line() -> None:
    with pytest.raises(
        RagError, match=r"no Qdrant server to use at http://127\.0\.0\.1:9 "
    ) as error:
        connect("http://someone:secret@127.0.0.1:9", None)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host:6333/path", "https://host:6333/path"),
        ("https://token@host", "https://host"),
        ("http://localhost:6333", "http://localhost:6333"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert safe_url(url) == shown
