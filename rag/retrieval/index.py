"""Where vectors are searched: one narrow interface, an index for each set of vectors.

An index is derived from the embed stage's output and is never changed after: other vectors,
another graph or another quantisation have another name and so another index. `publish_index`
builds what is missing and goes on with what was left half built, `open_index` refuses what is
missing, partial or foreign.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rag.errors import IndexMismatchError, ParamsError
from rag.params import IndexParams
from rag.records import Chunk, sorted_json
from rag.retrieval.bm25 import Bm25Encoder, SparseVector
from rag.retrieval.index_payload import StoredPassage, Where

if TYPE_CHECKING:
    from rag.retrieval.embeddings import EmbeddingFacts, Embeddings
    from rag.retrieval.encoder import FloatMatrix

#: Changes with what is stored: an index of another format has another name.
INDEX_FORMAT = 2
DENSE, BM25 = "dense", "bm25"
_BM25_PROBE = (
    "The ferries of 1961 weren't sailing; ｶﾓﾒ at 06:40, 渡輪在早上開出, 갈매기, Ærø, ferries."
)
REBUILD = "ragloop index rebuild"
NAME_DIGITS = 16

Hits = list[tuple[str, float]]
"""(chunk id, score), best first."""
PointIds = npt.NDArray[np.uint64]
Chunks = Path | Iterable[Sequence[Chunk]]
"""chunks.parquet, or its rows in batches; read twice, so an iterator will not do."""


@dataclass(frozen=True)
class BuildPlan:
    """What an index is built from and how; equal plans give the same `name`."""

    fingerprint: str
    dimension: int
    count: int
    how: Mapping[str, Any]

    @property
    def name(self) -> str:
        parts = {"vectors": self.fingerprint, "how": dict(self.how), "format": INDEX_FORMAT}
        return hashlib.sha256(sorted_json(parts).encode()).hexdigest()[:NAME_DIGITS]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"how": dict(self.how), "format": INDEX_FORMAT}


@dataclass(frozen=True)
class Seal:
    """What a complete index says of itself: its plan, and what was measured when it was built."""

    plan: Mapping[str, Any]
    average_length: float
    recall: float | None

    def is_of(self, plan: BuildPlan) -> bool:
        return dict(self.plan) == plan.to_json()


class VectorIndex(Protocol):
    """What Edge and Server both do; point ids are chunk ids, so an upsert can be repeated."""

    location: str
    """Where it lies, for messages."""

    def claim(self) -> None:
        """Waits until no other process on this machine builds the same index."""

    def begin(self, plan: BuildPlan) -> int:
        """An index to fill: a half-built one of this plan, or an empty one.

        Returns how many points, in the order of the embeddings, it holds for good.
        """

    def upsert(
        self,
        ids: PointIds,
        vectors: FloatMatrix,
        sparse: Sequence[SparseVector],
        payloads: Sequence[Mapping[str, Any]],
    ) -> None:
        """Adds points, or puts them in the place of those with the same ids."""

    def checkpoint(self, done: int) -> None:
        """All points up to `done` are in; makes them durable, at once or within a few batches."""

    def finish(self) -> None:
        """After the last point: builds what searching needs."""

    def seal(self, seal: Seal) -> None:
        """Marks the index as complete; from here on it is only read."""

    def sealed(self) -> Seal | None:
        """What was given to `seal`; None while the index is incomplete or absent."""

    def half_built(self) -> int | None:
        """How many points an unfinished build holds for good; None where there is none."""

    def delete(self, ids: Sequence[str]) -> None: ...

    def search_dense(
        self, queries: FloatMatrix, limit: int, where: Where | None = None, *, exact: bool = False
    ) -> list[Hits]:
        """The nearest chunks of each query, shape (Q, D); `exact` looks at every full vector."""

    def search_bm25(
        self, queries: Sequence[SparseVector], limit: int, where: Where | None = None
    ) -> list[Hits]:
        """The best chunks by shared terms; those that share none are left out."""

    def passages(self, ids: Sequence[str]) -> Mapping[str, StoredPassage]:
        """The chunks of these ids; an id that is not there is left out."""

    def vectors(self, ids: Sequence[str]) -> Mapping[str, Sequence[float]]: ...

    def ids(self) -> Iterator[PointIds]:
        """Every point id, ascending, in batches."""

    def count(self) -> int: ...

    def size_bytes(self) -> int | None:
        """Bytes on disk; None where the engine does not tell."""

    def drop(self) -> None: ...

    def close(self) -> None: ...


def build_plan(params: IndexParams, facts: EmbeddingFacts) -> BuildPlan:
    """What `params` make of these vectors; no part of it is what only searching reads."""
    how: dict[str, Any] = {
        "search": params.search,
        "quantization": params.quantization,
        "on_disk": params.on_disk,
        "bm25": bm25_fingerprint(),
    }
    if params.search == "hnsw":
        how |= {"m": params.hnsw.m, "ef_construct": params.hnsw.ef_construct}
    return BuildPlan(facts.fingerprint, facts.dimension, facts.count, how)


@functools.cache
def bm25_fingerprint() -> str:
    """8 hexadecimal digits that change with what BM25 makes of a text: its terms and weights.

    Terms come from the engine's tokenizers, so another version of it may give another index.
    """
    vector = Bm25Encoder(10.0).passage(_BM25_PROBE)
    weights = {
        str(term): round(float(value), 4)
        for term, value in zip(vector.indices, vector.values, strict=True)
    }
    return hashlib.sha256(sorted_json(weights).encode()).hexdigest()[:8]


def index_name(params: IndexParams, facts: EmbeddingFacts) -> str:
    """16 hexadecimal digits: the folder of an Edge index, the end of a collection's name."""
    return build_plan(params, facts).name


def publish_index(
    params: IndexParams,
    folder: Path,
    embeddings: Embeddings,
    chunks: Chunks,
    *,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] | None = None,
    rebuild: bool = False,
) -> str:
    """Builds the index of these embeddings unless it is there; returns its name.

    `progress` gets the number of points of each batch; `say` a line where the search is not exact:
    what it loses. With `rebuild` an index that is there is built anew. Raises IndexMismatchError
    where one is there under this name with other contents, or where the chunks are of another run.
    """
    from rag.retrieval.index_build import build_index
    from rag.retrieval.index_check import check_index

    plan = build_plan(params, embeddings.facts)
    index = connect_index(params, folder, plan.name)
    try:
        there = not rebuild and _is_sealed(index, plan)
        if not there:
            index.claim()
            # Another process may have built it while this one waited.
            there = not rebuild and _is_sealed(index, plan)
        if there:
            check_index(index, embeddings.facts)
            return plan.name
        build_index(index, plan, embeddings, chunks, params, progress=progress, say=say)
    finally:
        index.close()
    return plan.name


def open_index(params: IndexParams, folder: Path, facts: EmbeddingFacts) -> VectorIndex:
    """The sealed index of these embeddings; raises IndexMismatchError for any other state."""
    from rag.retrieval.index_check import check_index

    plan = build_plan(params, facts)
    index = connect_index(params, folder, plan.name)
    try:
        seal = index.sealed()
        if seal is None:
            raise IndexMismatchError(
                f"index {index.location} is missing or incomplete; run: {REBUILD}"
            )
        if not seal.is_of(plan):
            held = str(seal.plan.get("fingerprint", "?"))[:NAME_DIGITS]
            raise IndexMismatchError(
                f"index {index.location} holds the vectors {held} (built {seal.plan.get('how')}), "
                f"expected {facts.fingerprint[:NAME_DIGITS]} ({dict(plan.how)}); run: {REBUILD}"
            )
        check_index(index, facts)
    except BaseException:
        index.close()
        raise
    return index


def _is_sealed(index: VectorIndex, plan: BuildPlan) -> bool:
    seal = index.sealed()
    return seal is not None and seal.is_of(plan)


def connect_index(params: IndexParams, folder: Path, name: str) -> VectorIndex:
    """The index of this name where `params` say, whatever its state."""
    if params.kind == "edge":
        from rag.retrieval.index_edge import EdgeIndex

        return EdgeIndex(folder / name, params)
    from rag.retrieval.index_connection import connect
    from rag.retrieval.index_server import ServerIndex

    if params.url is None:
        raise ParamsError("index.url: kind 'server' needs a URL")
    return ServerIndex(connect(params.url, os.environ.get("RAGLOOP_QDRANT_API_KEY")), name, params)
