"""rag/retrieval/index_check.py: recall against numpy; every kind of wrong index by its problem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rag.params import IndexParams
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.embeddings import Embeddings
from rag.retrieval.index import Seal, build_plan
from rag.retrieval.index_check import is_exact, recall_line, search_recall, verify_index
from rag.retrieval.index_edge import EdgeIndex
from tests.retrieval.index_data import make_index_data

COUNT = 500


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    return make_index_data(COUNT)[1]


class Build:
    """Builds Edge indexes that are wrong in one way."""

    def __init__(self, folder: Path, embeddings: Embeddings) -> None:
        self._folder, self._embeddings = folder, embeddings
        self._opened: list[EdgeIndex] = []

    def __call__(self, ids: np.ndarray, vectors: np.ndarray) -> EdgeIndex:
        params = IndexParams()
        plan = build_plan(params, self._embeddings.facts)
        index = EdgeIndex(self._folder / "name", params)
        index.begin(plan)
        terms = [Bm25Encoder(1.0).passage("ferry")] * len(ids)
        index.upsert(ids, np.asarray(vectors, dtype=np.float32), terms, [{}] * len(ids))
        index.finish()
        index.seal(Seal(plan.to_json(), 1.0, None))
        self._opened.append(index)
        return index

    def close(self) -> None:
        for index in self._opened:
            index.close()


@pytest.fixture
def build(tmp_path: Path, embeddings: Embeddings) -> Iterator[Build]:
    building = Build(tmp_path, embeddings)
    yield building
    building.close()


def test_a_good_index_has_no_problems(build: Build, embeddings: Embeddings) -> None:
    report = verify_index(build(embeddings.ids, embeddings.vectors), embeddings)
    assert report.problems == ()
    assert (report.points, report.expected, report.recall_at_10) == (COUNT, COUNT, 1.0)
    assert report.sampled_vectors == 256


def test_missing_points_are_named_and_lower_the_recall(
    build: Build, embeddings: Embeddings
) -> None:
    report = verify_index(build(embeddings.ids[100:], embeddings.vectors[100:]), embeddings)
    assert report.problems[:2] == (
        f"400 points, expected {COUNT}",
        "100 ids are missing, 0000000000000001 first",
    )
    assert 0.7 < report.recall_at_10 < 0.9, "a fifth of the passages cannot be found"


def test_foreign_points_are_named(build: Build, embeddings: Embeddings) -> None:
    ids = embeddings.ids.copy()
    ids[7] = 2**63
    report = verify_index(build(ids, embeddings.vectors), embeddings)
    assert report.problems == (
        "1 ids are missing, 0000000000000078 first",  # 17 · 7 + 1
        "1 ids are foreign, 8000000000000000 first",
    )


def test_other_vectors_are_seen_by_canary_and_sample(build: Build, embeddings: Embeddings) -> None:
    report = verify_index(build(embeddings.ids, -np.asarray(embeddings.vectors)), embeddings)
    assert report.problems == (
        "canary 0000000000000001 differs from the embeddings",
        "256 of 256 sampled vectors differ, 0000000000000001 first",
    )
    assert report.recall_at_10 == 0.0


def test_recall_is_the_share_of_the_nearest_that_is_found(
    build: Build, embeddings: Embeddings
) -> None:
    """Of the ten nearest of each query, those that are left in an index without every third."""
    keep = np.arange(COUNT) % 3 != 0
    index = build(embeddings.ids[keep], embeddings.vectors[keep])
    queries = np.random.default_rng(2).normal(size=(50, 16)).astype(np.float32)
    nearest = np.argsort(-(queries @ embeddings.vectors.T), axis=1)
    for k in (1, 10):
        expected = keep[nearest[:, :k]].mean()
        assert search_recall(index, embeddings, queries, k) == pytest.approx(expected)


def test_more_neighbours_than_there_are_points(build: Build, embeddings: Embeddings) -> None:
    index = build(embeddings.ids, embeddings.vectors)
    assert search_recall(index, embeddings, embeddings.vectors[:2], COUNT * 2) == 1.0


@pytest.mark.parametrize(
    ("params", "exact", "line"),
    [
        (IndexParams(), True, "(exact) finds 98.5 %"),
        (IndexParams(search="hnsw"), False, "(hnsw) finds 98.5 %"),
        (IndexParams(quantization="scalar"), False, "(exact, scalar, rescored x3) finds"),
        (
            IndexParams(search="hnsw", quantization="binary", rescore=False),
            False,
            "(hnsw, binary, not rescored) finds",
        ),
    ],
)
def test_what_is_lost_is_one_line(params: IndexParams, exact: bool, line: str) -> None:
    assert is_exact(params) is exact
    assert line in recall_line(params, 0.985)
    assert recall_line(params, 0.985).endswith("1.5 points are lost against exact search")
