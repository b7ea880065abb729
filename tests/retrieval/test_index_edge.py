"""rag/retrieval/index_edge.py: what the parameters change in the engine of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.params import HnswParams, IndexParams
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.embeddings import EmbeddingFacts
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.index import BuildPlan, Seal, build_plan, index_name
from rag.retrieval.index_edge import EdgeIndex
from tests.retrieval.index_data import make_vectors

pytestmark = pytest.mark.integration


def plan(dimension: int, count: int, **how: Any) -> BuildPlan:
    facts = EmbeddingFacts("0123456789abcdef" * 4, "encoder", count, dimension, {})
    return build_plan(IndexParams(**how), facts)


def indexed(folder: Path, **how: Any) -> tuple[EdgeIndex, float]:
    """An index of 2,000 vectors and its recall@10 for 40 of them, moved a little."""
    vectors = make_vectors(2000, 64)
    index = EdgeIndex(folder / "name", IndexParams(**how))
    index.begin(plan(64, 2000, **how))
    ids = np.arange(2000, dtype=np.uint64)
    index.upsert(ids, vectors, [Bm25Encoder(1.0).passage("ferry")] * 2000, [{}] * 2000)
    index.finish()
    index.seal(Seal(plan(64, 2000, **how).to_json(), 1.0, None))
    return index, recall(index, vectors)


def recall(index: EdgeIndex, vectors: FloatMatrix, **search: Any) -> float:
    noise = np.random.default_rng(6).normal(size=(40, 64)).astype(np.float32)
    queries = vectors[:40] + 0.05 * noise
    found = index.search_dense(queries, 10, **search)
    nearest = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    return sum(
        len({int(name, 16) for name, _ in hits} & set(row.tolist()))
        for hits, row in zip(found, nearest, strict=True)
    ) / (40 * 10)


def test_exact_search_builds_no_graph(tmp_path: Path) -> None:
    index, found = indexed(tmp_path)
    assert found == 1.0
    assert not list((tmp_path / "name").rglob("graph*"))
    index.close()


def test_hnsw_builds_a_graph_and_ef_says_how_far_it_looks(tmp_path: Path) -> None:
    hnsw = HnswParams(m=4, ef_construct=16, ef=10)
    index, narrow = indexed(tmp_path, search="hnsw", hnsw=hnsw)
    assert list((tmp_path / "name").rglob("graph*"))
    index.close()
    wide_params = IndexParams(search="hnsw", hnsw=HnswParams(m=4, ef_construct=16, ef=400))
    wide = EdgeIndex(tmp_path / "name", wide_params)
    assert recall(wide, make_vectors(2000, 64)) > max(narrow, 0.95)
    assert recall(wide, make_vectors(2000, 64), exact=True) == 1.0
    wide.close()


@pytest.mark.parametrize(("kind", "low"), [("scalar", 0.9), ("binary", 0.2)])
def test_rescoring_gives_back_what_quantisation_loses(
    tmp_path: Path, kind: str, low: float
) -> None:
    index, plain = indexed(tmp_path, quantization=kind, rescore=False)
    index.close()
    assert low < plain < 0.999
    rescored = EdgeIndex(tmp_path / "name", IndexParams(quantization=kind, oversampling=20.0))
    vectors = make_vectors(2000, 64)
    assert recall(rescored, vectors) > max(plain, 0.85)
    assert recall(rescored, vectors, exact=True) == 1.0
    stored = rescored.vectors([f"{5:016x}"])
    np.testing.assert_array_equal(stored[f"{5:016x}"], vectors[5])
    rescored.close()


class TestName:
    FACTS = EmbeddingFacts("a" * 64, "encoder", 5, 2, {})

    def test_changes_with_everything_that_changes_what_is_stored(self) -> None:
        changed: list[tuple[dict[str, Any], EmbeddingFacts]] = [
            ({}, EmbeddingFacts("b" * 64, "encoder", 5, 2, {})),
            ({"search": "hnsw"}, self.FACTS),
            ({"search": "hnsw", "hnsw": HnswParams(m=8)}, self.FACTS),
            ({"search": "hnsw", "hnsw": HnswParams(ef_construct=64)}, self.FACTS),
            ({"quantization": "scalar"}, self.FACTS),
            ({"quantization": "binary"}, self.FACTS),
            ({"on_disk": False}, self.FACTS),
        ]
        names = [index_name(IndexParams(**how), facts) for how, facts in changed]
        assert len({*names, index_name(IndexParams(), self.FACTS)}) == len(changed) + 1
        assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)

    @pytest.mark.parametrize(
        "how",
        [
            {"upsert_batch": 7},
            {"rescore": False},
            {"oversampling": 9.0},
            {"hnsw": HnswParams(m=8)},
            {"kind": "server", "url": "http://localhost"},
        ],
    )
    def test_does_not_change_with_what_only_searching_or_filling_reads(
        self, how: dict[str, Any]
    ) -> None:
        expected = index_name(IndexParams(), self.FACTS)
        assert index_name(IndexParams(**how), self.FACTS) == expected
        hnsw = IndexParams(search="hnsw", hnsw=HnswParams(ef=7))
        assert index_name(hnsw, self.FACTS) == index_name(IndexParams(search="hnsw"), self.FACTS)
