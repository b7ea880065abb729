"""Whether an index is the one of these embeddings: at opening a few looks, on demand all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag.errors import IndexMismatchError
from rag.params import IndexParams
from rag.retrieval.embeddings import to_chunk_id, to_number
from rag.retrieval.index import REBUILD, VectorIndex

if TYPE_CHECKING:
    from rag.retrieval.embeddings import EmbeddingFacts, Embeddings
    from rag.retrieval.encoder import FloatMatrix

_TOLERANCE = 1e-4
_SAMPLE_VECTORS = 256
_RECALL_QUERIES = 200
_RECALL_ROWS = 16_384
#: How far a made-up question lies from the passage that it is made from (length of a unit vector).
_NOISE = 0.3


@dataclass(frozen=True)
class IndexReport:
    """What `verify_index` found; `problems` is empty where the index is right."""

    points: int
    expected: int
    sampled_vectors: int
    recall_at_10: float
    problems: tuple[str, ...]


def check_index(index: VectorIndex, facts: EmbeddingFacts) -> None:
    """Count and canaries: a few stored vectors must be the expected ones, not only as many."""
    check_count(index, facts)
    problem = _canary_problem(index, facts)
    if problem is not None:
        raise IndexMismatchError(f"index {index.location}: {problem}; run: {REBUILD}")


def check_count(index: VectorIndex, facts: EmbeddingFacts) -> None:
    count = index.count()
    if count != facts.count:
        raise IndexMismatchError(
            f"index {index.location} holds {count} points, expected {facts.count}; run: {REBUILD}"
        )


def verify_index(
    index: VectorIndex, embeddings: Embeddings, queries: FloatMatrix | None = None
) -> IndexReport:
    """Count, every id, the canaries, a sample of vectors, and what the search finds."""
    facts = embeddings.facts
    problems = []
    count = index.count()
    if count != facts.count:
        problems.append(f"{count} points, expected {facts.count}")
    problems += _id_problems(index, embeddings)
    canary = _canary_problem(index, facts)
    if canary is not None:
        problems.append(canary)
    rows = _spread(facts.count, _SAMPLE_VECTORS)
    names = [to_chunk_id(number) for number in embeddings.ids[rows].tolist()]
    stored = index.vectors(names)
    wrong = [
        name
        for name, row in zip(names, rows, strict=True)
        if name in stored
        and not np.allclose(stored[name], embeddings.vectors[row], atol=_TOLERANCE)
    ]
    if wrong:
        problems.append(f"{len(wrong)} of {len(rows)} sampled vectors differ, {wrong[0]} first")
    recall = search_recall(index, embeddings, queries)
    return IndexReport(count, facts.count, len(rows), recall, tuple(problems))


def search_recall(
    index: VectorIndex, embeddings: Embeddings, queries: FloatMatrix | None = None, k: int = 10
) -> float:
    """Share of the `k` nearest passages that the configured search finds, mean over queries.

    Without `queries`, shape (Q, D), passages are taken, evenly spread, each moved a little
    (seeded). What is nearest is worked out from the embeddings, not asked of the index.
    """
    if queries is None:
        queries = _made_up_queries(embeddings)
    k = min(k, embeddings.facts.count)
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)  # (Q, k)
    for start in range(0, embeddings.facts.count, _RECALL_ROWS):
        scores = queries @ np.asarray(embeddings.vectors[start : start + _RECALL_ROWS]).T
        best = -np.partition(-np.concatenate([best, scores], axis=1), k - 1, axis=1)[:, :k]
    order = np.argsort(embeddings.ids)
    worst = best.min(axis=1) - _TOLERANCE
    found = 0
    for query, limit, hits in zip(queries, worst, index.search_dense(queries, k), strict=True):
        wanted = np.array([to_number(chunk_id) for chunk_id, _ in hits], dtype=np.uint64)
        places = np.searchsorted(embeddings.ids, wanted, sorter=order)
        rows = order[np.minimum(places, len(order) - 1)]
        rows = rows[embeddings.ids[rows] == wanted]
        # A passage as near as the k-th nearest is as right as that one.
        found += int((np.asarray(embeddings.vectors[rows]) @ query >= limit).sum())
    return found / (len(queries) * k)


def is_exact(params: IndexParams) -> bool:
    """Whether the search looks at every full vector, so that nothing can be lost."""
    return params.search == "exact" and params.quantization == "none"


def recall_line(params: IndexParams, recall: float) -> str:
    """What a search that is not exact loses, in one line."""
    how = params.search if params.quantization == "none" else f"{params.search}, "
    if params.quantization != "none":
        rescored = f", rescored x{params.oversampling:g}" if params.rescore else ", not rescored"
        how += params.quantization + rescored
    return (
        f"index search ({how}) finds {100 * recall:.1f} % of the 10 nearest passages: "
        f"{100 * (1 - recall):.1f} points are lost against exact search"
    )


def _made_up_queries(embeddings: Embeddings) -> FloatMatrix:
    rows = _spread(embeddings.facts.count, _RECALL_QUERIES)
    vectors = np.asarray(embeddings.vectors[rows])
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    moved = vectors + _NOISE * noise / np.sqrt(vectors.shape[1])
    unit: FloatMatrix = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _canary_problem(index: VectorIndex, facts: EmbeddingFacts) -> str | None:
    stored = index.vectors(list(facts.canaries))
    for chunk_id, expected in facts.canaries.items():
        if chunk_id not in stored:
            return f"canary {chunk_id} is missing"
        if not np.allclose(stored[chunk_id], expected, atol=_TOLERANCE):
            return f"canary {chunk_id} differs from the embeddings"
    return None


def _id_problems(index: VectorIndex, embeddings: Embeddings) -> list[str]:
    held = np.concatenate([np.empty(0, dtype=np.uint64), *index.ids()])
    missing = np.setdiff1d(embeddings.ids, held)
    foreign = np.setdiff1d(held, embeddings.ids)
    problems = []
    if len(held) != len(np.unique(held)):
        problems.append(f"{len(held) - len(np.unique(held))} ids are there twice")
    if len(missing):
        problems.append(f"{len(missing)} ids are missing, {to_chunk_id(int(missing[0]))} first")
    if len(foreign):
        problems.append(f"{len(foreign)} ids are foreign, {to_chunk_id(int(foreign[0]))} first")
    return problems


def _spread(count: int, size: int) -> list[int]:
    """At most `size` row numbers, evenly spaced from the first."""
    return (
        sorted({int(row) for row in np.linspace(0, count - 1, min(size, count))}) if count else []
    )
