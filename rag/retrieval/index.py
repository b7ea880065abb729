"""Where vectors are searched: one narrow interface, an index per fingerprint.

An index is derived from the embed stage's output in seconds and is never changed after: other
vectors have another fingerprint and so another index. `publish_index` builds what is missing,
`open_index` refuses what is missing, partial or foreign.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from rag.errors import IndexMismatchError, ParamsError
from rag.params import IndexParams
from rag.records import Chunk
from rag.retrieval.bm25 import Bm25Encoder, SparseVector
from rag.retrieval.embeddings import Embeddings
from rag.retrieval.encoder import FloatMatrix

CANARIES = 4
DENSE, BM25 = "dense", "bm25"
Hits = list[tuple[str, float]]
"""(chunk id, score), best first."""


class VectorIndex(Protocol):
    """What Edge and Server both do; point ids are chunk ids, so an upsert can be repeated."""

    location: str
    """Where it lies, for messages."""

    def create(self, dimension: int) -> None:
        """An empty index to fill; what an unfinished build left is gone."""

    def upsert(
        self, ids: Sequence[str], vectors: FloatMatrix, sparse: Sequence[SparseVector]
    ) -> None: ...

    def seal(self, fingerprint: str) -> None:
        """Marks the index as complete; from here on it is only read."""

    def sealed_fingerprint(self) -> str | None:
        """The fingerprint given to `seal`, None while the index is incomplete or absent."""

    def delete(self, ids: Sequence[str]) -> None: ...

    def search_dense(self, queries: FloatMatrix, limit: int) -> list[Hits]: ...

    def search_bm25(self, queries: Sequence[SparseVector], limit: int) -> list[Hits]: ...

    def count(self) -> int: ...

    def vectors(self, ids: Sequence[str]) -> Mapping[str, Sequence[float]]: ...

    def drop(self) -> None: ...

    def close(self) -> None: ...


def publish_index(
    params: IndexParams, folder: Path, embeddings: Embeddings, chunks: Sequence[Chunk]
) -> str:
    """Builds the index of these embeddings unless it is there; returns its fingerprint."""
    index = _index(params, folder, embeddings.fingerprint)
    try:
        if index.sealed_fingerprint() == embeddings.fingerprint:
            _check(index, embeddings)
            return embeddings.fingerprint
        index.create(embeddings.vectors.shape[1])
        bm25 = Bm25Encoder(embeddings.average_tokens)
        for start, stop in _batches(len(chunks), params.upsert_batch):
            sparse = [bm25.passage(chunk.text) for chunk in chunks[start:stop]]
            index.upsert(embeddings.ids[start:stop], embeddings.vectors[start:stop], sparse)
        index.seal(embeddings.fingerprint)
    finally:
        index.close()
    return embeddings.fingerprint


def open_index(params: IndexParams, folder: Path, embeddings: Embeddings) -> VectorIndex:
    """The sealed index of these embeddings; raises IndexMismatchError for any other state."""
    index = _index(params, folder, embeddings.fingerprint)
    found = index.sealed_fingerprint()
    try:
        if found != embeddings.fingerprint:
            state = "is missing or incomplete" if found is None else f"holds {found[:16]}"
            raise IndexMismatchError(
                f"index {index.location} of {embeddings.fingerprint[:16]} {state}; run: ragloop run"
            )
        _check(index, embeddings)
    except IndexMismatchError:
        index.close()
        raise
    return index


def _index(params: IndexParams, folder: Path, fingerprint: str) -> VectorIndex:
    name = fingerprint[:16]
    if params.kind == "edge":
        from rag.retrieval.index_edge import EdgeIndex

        return EdgeIndex(folder / name)
    from rag.retrieval.index_server import ServerIndex, connect

    if params.url is None:
        raise ParamsError("index.url: kind 'server' needs a URL")
    return ServerIndex(connect(params.url, os.environ.get("RAGLOOP_QDRANT_API_KEY")), name)


def _check(index: VectorIndex, embeddings: Embeddings) -> None:
    """Count and canaries: a few stored vectors must be the expected ones, not only as many."""
    count = index.count()
    if count != len(embeddings.ids):
        raise IndexMismatchError(
            f"index {index.location} holds {count} points, expected "
            f"{len(embeddings.ids)}; delete it and run: ragloop run"
        )
    step = max(1, len(embeddings.ids) // CANARIES)
    rows = list(range(0, len(embeddings.ids), step))[:CANARIES]
    stored = index.vectors([embeddings.ids[row] for row in rows])
    for row in rows:
        chunk_id = embeddings.ids[row]
        expected = np.asarray(embeddings.vectors[row])
        if chunk_id not in stored or not np.allclose(stored[chunk_id], expected, atol=1e-3):
            raise IndexMismatchError(
                f"index {index.location}: canary {chunk_id} differs from the embeddings; "
                "delete it and run: ragloop run"
            )


def _batches(total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, size):
        yield start, min(start + size, total)


def safe_url(url: str) -> str:
    """The URL without user and password, for messages and logs."""
    return re.sub(r"//[^/@]*@", "//", url)
