"""The index on a Qdrant server: one collection per build plan, named after it.

One point of the collection is no passage: it holds the plan, how far the build came, and last the
seal. It is written after each batch that the server has confirmed, so that a killed build goes on
with the batch after it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import RagError
from rag.params import IndexParams
from rag.retrieval.bm25 import SparseVector
from rag.retrieval.embeddings import to_chunk_id, to_number
from rag.retrieval.index import BM25, DENSE, REBUILD, BuildPlan, Hits, PointIds, Seal
from rag.retrieval.index_connection import ServerCalls
from rag.retrieval.index_payload import (
    TERMS,
    StoredPassage,
    Where,
    stored_passage,
)
from rag.retrieval.index_server_settings import (
    collection_settings,
    request_batches,
    search_params,
    terms_filter,
)

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from rag.retrieval.encoder import FloatMatrix

PREFIX = "ragloop-"
_CONTROL = 2**64 - 1
_CONTROL_FIELD = "ragloop"
_QUERY_BATCH = 64
_SCROLL_POINTS = 10_000
_OPTIMISE_SECONDS, _POLL_SECONDS = 6 * 3600, 0.5


class ServerIndex:
    """A collection `ragloop-<name>`."""

    def __init__(
        self,
        client: QdrantClient,
        name: str,
        params: IndexParams,
        *,
        calls: ServerCalls | None = None,
    ) -> None:
        self._calls = calls or ServerCalls(client)
        self._name = PREFIX + name
        self._params = params
        self._plan: BuildPlan | None = None
        self.location = f"collection {self._name}"

    def claim(self) -> None:
        """Processes that build the same collection at once send equal points: no harm is done."""

    def begin(self, plan: BuildPlan) -> int:
        from qdrant_client import models

        self._plan = plan
        state = self._control()
        same = state is not None and "seal" not in state and state["plan"] == plan.to_json()
        if state is not None and same and self.count() >= state["done"]:
            return int(state["done"])
        self.drop()
        settings = collection_settings(plan)
        try:
            self._calls.call("create_collection", self._name, **settings)
        except RagError:
            # The answer to an attempt that worked was lost: the next one finds it there.
            if not self._calls.call("collection_exists", self._name):
                raise
        self._calls.call(
            "create_payload_index",
            self._name,
            TERMS,
            field_schema=models.PayloadSchemaType.KEYWORD,
            wait=True,
        )
        self.checkpoint(0)
        return 0

    def upsert(
        self,
        ids: PointIds,
        vectors: FloatMatrix,
        sparse: Sequence[SparseVector],
        payloads: Sequence[Mapping[str, Any]],
    ) -> None:
        from qdrant_client import models

        rows = zip(ids.tolist(), vectors.tolist(), sparse, payloads, strict=True)
        points = [
            models.PointStruct(
                id=number, vector={DENSE: vector, BM25: _to_qdrant(terms)}, payload=dict(payload)
            )
            for number, vector, terms, payload in rows
        ]
        for start, stop in request_batches(vectors.shape[1], sparse, payloads):
            self._calls.call("upsert", self._name, points[start:stop], wait=True)

    def checkpoint(self, done: int) -> None:
        assert self._plan is not None
        self._write_control({"plan": self._plan.to_json(), "done": done})

    def delete(self, ids: Sequence[str]) -> None:
        from qdrant_client import models

        selector = models.PointIdsList(points=[to_number(i) for i in ids])
        self._calls.call("delete", self._name, selector, wait=True)

    def finish(self) -> None:
        """Waits for the server's optimiser: until then new points are searched one by one."""
        deadline = time.monotonic() + _OPTIMISE_SECONDS
        while True:
            status = self._calls.call("get_collection", self._name).status
            if status.value == "green":
                return
            if status.value == "red" or time.monotonic() > deadline:
                raise RagError(
                    f"{self.location}: its optimiser does not come to an end (status "
                    f"{status.value}); look at the server's log, then run: {REBUILD}"
                )
            time.sleep(_POLL_SECONDS)

    def seal(self, seal: Seal) -> None:
        self._write_control({"plan": dict(seal.plan), "seal": asdict(seal)})

    def sealed(self) -> Seal | None:
        state = self._control()
        return Seal(**state["seal"]) if state is not None and "seal" in state else None

    def half_built(self) -> int | None:
        state = self._control()
        return int(state["done"]) if state is not None and "seal" not in state else None

    def search_dense(
        self, queries: FloatMatrix, limit: int, where: Where | None = None, *, exact: bool = False
    ) -> list[Hits]:
        params = search_params(self._params, exact=exact)
        return self._search(queries.tolist(), DENSE, limit, where, params)

    def search_bm25(
        self, queries: Sequence[SparseVector], limit: int, where: Where | None = None
    ) -> list[Hits]:
        return self._search([_to_qdrant(query) for query in queries], BM25, limit, where, None)

    def passages(self, ids: Sequence[str]) -> Mapping[str, StoredPassage]:
        records = self._retrieve(ids, with_payload=True, with_vectors=False)
        return {to_chunk_id(point.id): stored_passage(point.id, point.payload) for point in records}

    def vectors(self, ids: Sequence[str]) -> Mapping[str, Sequence[float]]:
        records = self._retrieve(ids, with_payload=False, with_vectors=[DENSE])
        return {to_chunk_id(point.id): point.vector[DENSE] for point in records}

    def ids(self) -> Iterator[PointIds]:
        offset, first = None, True
        while first or offset is not None:
            first = False
            records, offset = self._calls.call(
                "scroll",
                self._name,
                limit=_SCROLL_POINTS,
                offset=offset,
                with_payload=False,
                with_vectors=False,
            )
            numbers = [record.id for record in records if record.id != _CONTROL]
            yield np.array(numbers, dtype=np.uint64)

    def count(self) -> int:
        """The control point is not counted; its filter is by id, so it costs nothing."""
        from qdrant_client import models

        passages = models.Filter(must_not=[models.HasIdCondition(has_id=[_CONTROL])])
        return int(self._calls.call("count", self._name, count_filter=passages, exact=True).count)

    def size_bytes(self) -> int | None:
        return None

    def drop(self) -> None:
        if self._calls.call("collection_exists", self._name):
            self._calls.call("delete_collection", self._name)

    def close(self) -> None:
        self._calls.close()

    def _control(self) -> dict[str, Any] | None:
        """What the control point holds; None where there is no collection, or it has none."""
        if not self._calls.call("collection_exists", self._name):
            return None
        records = self._calls.call("retrieve", self._name, [_CONTROL], with_payload=True)
        state = (records[0].payload or {}).get(_CONTROL_FIELD) if records else None
        return dict(state) if state else None

    def _write_control(self, state: Mapping[str, Any]) -> None:
        from qdrant_client import models

        point = models.PointStruct(id=_CONTROL, vector={}, payload={_CONTROL_FIELD: dict(state)})
        self._calls.call("upsert", self._name, [point], wait=True)

    def _retrieve(self, ids: Sequence[str], **wanted: Any) -> list[Any]:
        numbers = [to_number(i) for i in ids]
        return list(self._calls.call("retrieve", self._name, numbers, **wanted))

    def _search(
        self, queries: Sequence[Any], using: str, limit: int, where: Where | None, params: Any
    ) -> list[Hits]:
        from qdrant_client import models

        chosen = terms_filter(where)
        found: list[Hits] = []
        for start in range(0, len(queries), _QUERY_BATCH):
            requests = [
                models.QueryRequest(
                    query=query,
                    using=using,
                    limit=limit,
                    filter=chosen,
                    params=params,
                    with_payload=False,
                    with_vector=False,
                )
                for query in queries[start : start + _QUERY_BATCH]
            ]
            for answer in self._calls.call("query_batch_points", self._name, requests):
                found.append([(to_chunk_id(hit.id), hit.score) for hit in answer.points])
        return found


def _to_qdrant(vector: SparseVector) -> Any:
    from qdrant_client import models

    return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
