"""The engines that index_speed.py compares: each is filled, and yields how it is searched."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BATCH, LIMIT = 512, 10
TEXT = "The ferry leaves the northern quay at six and is back before noon, weather permitting. " * 5
LOCAL = "qdrant-client local"

Matrix = npt.NDArray[np.float32]
Search = Callable[[Matrix], list[list[int]]]


def exact(vectors: Matrix, queries: Matrix) -> npt.NDArray[np.int64]:
    """The best LIMIT rows of each query, shape (Q, LIMIT), best first."""
    found = []
    for start in range(0, len(queries), 256):
        scores = queries[start : start + 256] @ vectors.T
        best = np.argpartition(-scores, LIMIT, axis=1)[:, :LIMIT]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        found.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(found)


def edge(**how: Any) -> Callable[[Matrix, Path], Iterator[tuple[Search, float]]]:
    """Our index, filled as the builder does it and sealed."""

    def prepare(vectors: Matrix, folder: Path) -> Iterator[tuple[Search, float]]:
        from rag.params import IndexParams
        from rag.retrieval.bm25 import SparseVector
        from rag.retrieval.embeddings import EmbeddingFacts
        from rag.retrieval.index import Seal, build_plan
        from rag.retrieval.index_edge import EdgeIndex

        params = IndexParams(**how)
        facts = EmbeddingFacts("0" * 64, "", len(vectors), vectors.shape[1], {})
        index = EdgeIndex(folder / build_plan(params, facts).name, params)
        index.begin(build_plan(params, facts))
        untimed = 0.0
        for rows, ids, counts, payloads, seconds in _batches(len(vectors), folder):
            untimed += seconds
            sparse = [SparseVector(ids[i], counts[i]) for i in range(len(ids))]
            numbers = np.arange(rows.start, rows.stop, dtype=np.uint64)
            index.upsert(numbers, np.asarray(vectors[rows]), sparse, payloads)
            index.checkpoint(rows.stop)
        index.finish()
        index.seal(Seal(build_plan(params, facts).to_json(), 1.0, None))
        index.count()  # opens it
        yield (
            lambda queries: [
                [int(name, 16) for name, _ in hits] for hits in index.search_dense(queries, LIMIT)
            ],
            untimed,
        )

    return prepare


def local_mode(vectors: Matrix, folder: Path) -> Iterator[tuple[Search, float]]:
    from qdrant_client import QdrantClient, models

    warnings.simplefilter("ignore")
    client = QdrantClient(path=str(folder / "local"))
    client.create_collection(
        "benchmark",
        vectors_config={
            "dense": models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
        },
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    untimed = 0.0
    for rows, ids, counts, payloads, seconds in _batches(len(vectors), folder):
        untimed += seconds
        points = [
            models.PointStruct(
                id=rows.start + i,
                vector={
                    "dense": vectors[rows.start + i].tolist(),
                    "bm25": models.SparseVector(indices=ids[i].tolist(), values=counts[i].tolist()),
                },
                payload=payloads[i],
            )
            for i in range(len(ids))
        ]
        client.upsert("benchmark", points)

    def search(queries: Matrix) -> list[list[int]]:
        requests = [
            models.QueryRequest(query=query.tolist(), using="dense", limit=LIMIT)
            for query in queries
        ]
        answers = client.query_batch_points("benchmark", requests)
        return [[int(point.id) for point in answer.points] for answer in answers]

    yield search, untimed
    client.close()


def faiss_flat(vectors: Matrix, _: Path) -> Iterator[tuple[Search, float]]:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.asarray(vectors))
    yield lambda queries: index.search(queries, LIMIT)[1].tolist(), 0.0


def faiss_hnsw(vectors: Matrix, _: Path) -> Iterator[tuple[Search, float]]:
    """The same m, ef_construct and ef as `edge hnsw`."""
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = 128
    index.add(np.asarray(vectors))
    yield lambda queries: index.search(queries, LIMIT)[1].tolist(), 0.0


def numpy_exact(vectors: Matrix, _: Path) -> Iterator[tuple[Search, float]]:
    matrix = np.array(vectors)
    yield lambda queries: exact(matrix, queries).tolist(), 0.0


def _batches(
    count: int, folder: Path
) -> Iterator[tuple[slice, list[Any], list[Any], list[dict[str, Any]], float]]:
    """Rows, term ids, weights and payloads; and the seconds it took to make them up."""
    terms = np.load(folder / "terms.npy", mmap_mode="r")
    for start in range(0, count, BATCH):
        began = time.perf_counter()
        rows = slice(start, min(start + BATCH, count))
        made = [np.unique(picks, return_counts=True) for picks in np.asarray(terms[rows])]
        payloads: list[dict[str, Any]] = [
            {}
            if not terms.shape[1]
            else {
                "document_id": f"d{row // 5}",
                "text": f"{TEXT}{row}",
                "title": f"Title {row // 5}",
                "source": f"docs/{row // 5}.md",
                "language": "en",
                "metadata": {},
                "terms": [f"document_id=d{row // 5}", f"source=docs/{row // 5}.md", "language=en"],
            }
            for row in range(rows.start, rows.stop)
        ]
        ids = [pair[0] for pair in made]
        counts = [pair[1].astype(np.float32) for pair in made]
        yield rows, ids, counts, payloads, time.perf_counter() - began


ENGINES: dict[str, Callable[[Matrix, Path], Iterator[tuple[Search, float]]]] = {
    "edge exact": edge(),
    "edge hnsw": edge(search="hnsw"),
    "edge hnsw, cached": edge(search="hnsw", on_disk=False),
    "edge scalar": edge(quantization="scalar"),
    "edge binary": edge(quantization="binary"),
    "numpy exact": numpy_exact,
    "faiss flat": faiss_flat,
    "faiss hnsw": faiss_hnsw,
    LOCAL: local_mode,
}
