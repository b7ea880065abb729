"""The index in this process: a Qdrant Edge shard, built aside and moved into place.

The write-ahead log is off, so that several processes can read one shard at a time; durability comes
from building in a temporary folder, flushing, and renaming it once, after which nothing changes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.errors import IndexMismatchError
from rag.retrieval.bm25 import SparseVector
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.index import BM25, DENSE, Hits

_SEAL = "sealed.json"


class EdgeIndex:
    """A shard at `folder` once it is sealed; until then it is built in `folder.<pid>.tmp`."""

    def __init__(self, folder: Path) -> None:
        self.location = str(folder)
        self._folder = folder
        self._building = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        self._open: Any = None

    def create(self, dimension: int) -> None:
        import qdrant_edge as qdrant

        self._remove_abandoned()
        self._building.mkdir(parents=True)
        self._open = qdrant.EdgeShard.create(
            str(self._building),
            qdrant.EdgeConfig(
                vectors={DENSE: qdrant.EdgeVectorParams(dimension, qdrant.Distance.Dot)},
                # Every search is exact: a graph would cost most of the build and never be used.
                hnsw_config=qdrant.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10),
                sparse_vectors={BM25: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)},
                wal_enabled=False,
            ),
        )

    def upsert(
        self, ids: Sequence[str], vectors: FloatMatrix, sparse: Sequence[SparseVector]
    ) -> None:
        import qdrant_edge as qdrant

        points = [
            qdrant.Point(
                int(chunk_id, 16),
                {DENSE: vector.tolist(), BM25: _to_qdrant(terms)},
                {"chunk_id": chunk_id},
            )
            for chunk_id, vector, terms in zip(ids, vectors, sparse, strict=True)
        ]
        self._shard.update(qdrant.UpdateOperation.upsert_points(points))

    def delete(self, ids: Sequence[str]) -> None:
        import qdrant_edge as qdrant

        self._shard.update(qdrant.UpdateOperation.delete_points([int(i, 16) for i in ids]))

    def seal(self, fingerprint: str) -> None:
        import qdrant_edge as qdrant

        self._shard.flush()
        self._shard.optimize()
        self._shard.flush()
        self.close()
        # The first opening folds the journals away; after it a reader leaves every file as it is.
        qdrant.EdgeShard.load(str(self._building)).close()
        seal = {"fingerprint": fingerprint, "bytes": _file_bytes(self._building)}
        (self._building / _SEAL).write_text(json.dumps(seal) + "\n", encoding="utf-8")
        try:
            self._building.rename(self._folder)
        except OSError:
            if self.sealed_fingerprint() == fingerprint:
                # Another process sealed the same vectors first.
                shutil.rmtree(self._building)
                return
            self.drop()
            self._building.rename(self._folder)

    def sealed_fingerprint(self) -> str | None:
        try:
            seal = json.loads((self._folder / _SEAL).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        # A file that is missing or cut short would make the engine panic, or find less.
        for name, size in seal["bytes"].items():
            path = self._folder / name
            if not path.is_file() or path.stat().st_size != size:
                return None
        return str(seal["fingerprint"])

    def search_dense(self, queries: FloatMatrix, limit: int) -> list[Hits]:
        return self._search([query.tolist() for query in queries], DENSE, limit)

    def search_bm25(self, queries: Sequence[SparseVector], limit: int) -> list[Hits]:
        return self._search([_to_qdrant(query) for query in queries], BM25, limit)

    def count(self) -> int:
        import qdrant_edge as qdrant

        return int(self._shard.count(qdrant.CountRequest(exact=True)))

    def vectors(self, ids: Sequence[str]) -> Mapping[str, Sequence[float]]:
        records = self._shard.retrieve(
            [int(i, 16) for i in ids], with_payload=True, with_vector=[DENSE]
        )
        return {record.payload["chunk_id"]: record.vector[DENSE] for record in records}

    def drop(self) -> None:
        self.close()
        # Moved aside first: nobody can open a folder that is half deleted.
        aside = self._folder.with_name(f"{self._folder.name}.{os.getpid()}.old.tmp")
        try:
            self._folder.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _remove_abandoned(self) -> None:
        """What this process, or one that is no more, left of a build that did not end."""
        import psutil

        for path in self._folder.parent.glob(f"{self._folder.name}.*.tmp"):
            builder = int(path.name.split(".")[1])
            if builder == os.getpid() or not psutil.pid_exists(builder):
                shutil.rmtree(path, ignore_errors=True)

    @property
    def _shard(self) -> Any:
        if self._open is None:
            import qdrant_edge as qdrant

            if self.sealed_fingerprint() is None:
                raise IndexMismatchError(f"no index at {self._folder}; run: ragloop run")
            self._open = qdrant.EdgeShard.load(str(self._folder))
        return self._open

    def _search(self, queries: Sequence[Any], using: str, limit: int) -> list[Hits]:
        import qdrant_edge as qdrant

        if not queries:
            return []
        requests = [
            qdrant.QueryRequest(
                limit=limit,
                query=qdrant.Query.Nearest(query, using=using),
                params=qdrant.SearchParams(exact=True),
                with_payload=True,
            )
            for query in queries
        ]
        found = self._shard.query_batch(qdrant.QueryBatchRequest(requests))
        return [[(point.payload["chunk_id"], point.score) for point in hits] for hits in found]


def _file_bytes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


def _to_qdrant(vector: SparseVector) -> Any:
    import qdrant_edge as qdrant

    return qdrant.SparseVector(vector.indices.tolist(), vector.values.tolist())
