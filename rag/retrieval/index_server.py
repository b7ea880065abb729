"""The index on a Qdrant server: one collection per fingerprint, named after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rag.errors import RagError
from rag.retrieval.bm25 import SparseVector
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.index import BM25, DENSE, Hits, safe_url

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

_SEAL = "sealed"
_PREFIX = "ragloop-"
_TIMEOUT_SECONDS = 60
_RETRIES = 3
#: A request stays well under 5 MB: a number of a vector takes up to 22 characters of JSON.
_REQUEST_BYTES, _NUMBER_BYTES, _TERMS_BYTES = 4_000_000, 22, 16_384


def connect(url: str, api_key: str | None) -> QdrantClient:
    """A client of a server, or of `:memory:`, the client's own engine without a server.

    Raises RagError where no server answers or it refuses the key.
    """
    from qdrant_client import QdrantClient
    from qdrant_client.http.exceptions import ApiException

    if url == ":memory:":
        return QdrantClient(":memory:")
    client = QdrantClient(
        url=url, api_key=api_key, timeout=_TIMEOUT_SECONDS, check_compatibility=False
    )
    try:
        client.get_collections()
    except ApiException as error:
        client.close()
        reason = " ".join(str(error).split())[:200]
        raise RagError(
            f"no Qdrant server to use at {safe_url(url)} ({reason}); "
            "check index.url and RAGLOOP_QDRANT_API_KEY, or set index.kind to edge"
        ) from error
    return client


class ServerIndex:
    """A collection `ragloop-<name>`; the seal is a point of its own, written last."""

    def __init__(self, client: QdrantClient, name: str) -> None:
        self._client = client
        self._name = _PREFIX + name
        self.location = f"collection {self._name}"
        self._seal_id = 2**64 - 1

    def create(self, dimension: int) -> None:
        from qdrant_client import models

        self.drop()
        self._client.create_collection(
            self._name,
            vectors_config={
                DENSE: models.VectorParams(size=dimension, distance=models.Distance.DOT)
            },
            sparse_vectors_config={
                BM25: models.SparseVectorParams(modifier=models.Modifier.IDF),
            },
        )

    def upsert(
        self, ids: Sequence[str], vectors: FloatMatrix, sparse: Sequence[SparseVector]
    ) -> None:
        from qdrant_client import models

        points = [
            models.PointStruct(
                id=int(chunk_id, 16),
                vector={DENSE: vector.tolist(), BM25: _to_qdrant(terms)},
                payload={"chunk_id": chunk_id},
            )
            for chunk_id, vector, terms in zip(ids, vectors, sparse, strict=True)
        ]
        point_bytes = _NUMBER_BYTES * vectors.shape[1] + _TERMS_BYTES
        self._client.upload_points(
            self._name,
            points,
            batch_size=max(1, _REQUEST_BYTES // point_bytes),
            max_retries=_RETRIES,
            wait=True,
        )

    def delete(self, ids: Sequence[str]) -> None:
        from qdrant_client import models

        selector = models.PointIdsList(points=[int(i, 16) for i in ids])
        self._client.delete(self._name, selector, wait=True)

    def seal(self, fingerprint: str) -> None:
        from qdrant_client import models

        point = models.PointStruct(id=self._seal_id, vector={}, payload={_SEAL: fingerprint})
        self._client.upsert(self._name, [point], wait=True)

    def sealed_fingerprint(self) -> str | None:
        if not self._client.collection_exists(self._name):
            return None
        records = self._client.retrieve(self._name, [self._seal_id], with_payload=True)
        return str((records[0].payload or {})[_SEAL]) if records else None

    def search_dense(self, queries: FloatMatrix, limit: int) -> list[Hits]:
        return self._search([query.tolist() for query in queries], DENSE, limit)

    def search_bm25(self, queries: Sequence[SparseVector], limit: int) -> list[Hits]:
        return self._search([_to_qdrant(query) for query in queries], BM25, limit)

    def count(self) -> int:
        total = self._client.count(self._name, exact=True).count
        return total - (1 if self.sealed_fingerprint() is not None else 0)

    def vectors(self, ids: Sequence[str]) -> Mapping[str, Sequence[float]]:
        records = self._client.retrieve(
            self._name, [int(i, 16) for i in ids], with_payload=True, with_vectors=[DENSE]
        )
        found: dict[str, Sequence[float]] = {}
        for record in records:
            stored: Any = record.vector
            found[str((record.payload or {})["chunk_id"])] = stored[DENSE]
        return found

    def drop(self) -> None:
        if self._client.collection_exists(self._name):
            self._client.delete_collection(self._name)

    def close(self) -> None:
        self._client.close()

    def _search(self, queries: Sequence[Any], using: str, limit: int) -> list[Hits]:
        from qdrant_client import models

        if not queries:
            return []
        requests = [
            models.QueryRequest(
                query=query,
                using=using,
                limit=limit,
                params=models.SearchParams(exact=True),
                with_payload=True,
            )
            for query in queries
        ]
        responses = self._client.query_batch_points(self._name, requests)
        return [
            [(str((point.payload or {})["chunk_id"]), point.score) for point in response.points]
            for response in responses
        ]


def _to_qdrant(vector: SparseVector) -> Any:
    from qdrant_client import models

    return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
