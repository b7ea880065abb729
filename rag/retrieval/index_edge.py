"""The index in this process: a Qdrant Edge shard, built aside and moved into place.

The write-ahead log is off, so that several processes can read one shard at a time. What makes a
build durable instead: it is flushed every few thousand points, and a file beside the shard says how
far it came, so that a killed build goes on from there. Renamed into place, nothing changes it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.artifacts import folder_bytes
from rag.errors import IndexMismatchError
from rag.params import IndexParams
from rag.retrieval.bm25 import SparseVector
from rag.retrieval.embeddings import to_chunk_id, to_number
from rag.retrieval.index import BM25, DENSE, REBUILD, BuildPlan, Hits, PointIds, Seal
from rag.retrieval.index_edge_settings import (
    search_params,
    shard_config,
    terms_filter,
    terms_index,
)
from rag.retrieval.index_payload import (
    TERMS,
    StoredPassage,
    Where,
    stored_passage,
)
from rag.retrieval.index_seal import BuildLock, read_seal, replace_file, write_seal

if TYPE_CHECKING:
    from rag.retrieval.encoder import FloatMatrix

_PROGRESS = "progress.json"
_PASSAGE = "passage"
#: A flush writes every changed page, so one for each batch would cost more than the batches.
_FLUSH_POINTS = 32_768
_QUERY_BATCH = 256
_SCROLL_POINTS = 10_000


class EdgeIndex:
    """A shard at `folder` once it is sealed; until then it is built in `folder.tmp`."""

    def __init__(self, folder: Path, params: IndexParams) -> None:
        self.location = str(folder)
        self._folder = folder
        self._params = params
        self._building = folder.with_name(f"{folder.name}.tmp")
        self._lock = BuildLock(folder.with_name(f"{folder.name}.lock"))
        self._plan: BuildPlan | None = None
        self._open: Any = None
        self._durable = 0

    def claim(self) -> None:
        self._building.parent.mkdir(parents=True, exist_ok=True)
        self._lock.hold()

    def begin(self, plan: BuildPlan) -> int:
        import qdrant_edge as qdrant

        self.close_shard()
        self.claim()
        self._plan = plan
        self._remove_old()
        self._durable = self._go_on(plan)
        if self._open is None:
            shutil.rmtree(self._building, ignore_errors=True)
            self._building.mkdir()
            self._open = qdrant.EdgeShard.create(str(self._building), shard_config(plan))
            self._record(0)
        return self._durable

    def upsert(
        self,
        ids: PointIds,
        vectors: FloatMatrix,
        sparse: Sequence[SparseVector],
        payloads: Sequence[Mapping[str, Any]],
    ) -> None:
        import qdrant_edge as qdrant

        rows = zip(ids.tolist(), vectors.tolist(), sparse, payloads, strict=True)
        points = [
            qdrant.Point(number, {DENSE: vector, BM25: _to_qdrant(terms)}, _packed(payload))
            for number, vector, terms, payload in rows
        ]
        self._shard.update(qdrant.UpdateOperation.upsert_points(points))

    def checkpoint(self, done: int) -> None:
        if done - self._durable >= _FLUSH_POINTS:
            self._record(done)

    def delete(self, ids: Sequence[str]) -> None:
        import qdrant_edge as qdrant

        self._shard.update(qdrant.UpdateOperation.delete_points([to_number(i) for i in ids]))

    def finish(self) -> None:
        import qdrant_edge as qdrant

        shard = self._shard
        shard.flush()
        shard.optimize()
        # Made last, in one pass: kept up to date while points come in it would cost twice as much.
        shard.update(qdrant.UpdateOperation.create_field_index(TERMS, terms_index(self._params)))
        shard.flush()

    def seal(self, seal: Seal) -> None:
        self.close_shard()
        # The first opening folds the journals away; after it a reader leaves every file as it is.
        _load(self._building).close()
        write_seal(self._building, seal, leave_out=_PROGRESS)
        try:
            self._building.rename(self._folder)
        except OSError:
            self.drop()
            self._building.rename(self._folder)
        (self._folder / _PROGRESS).unlink(missing_ok=True)
        self.close()

    def sealed(self) -> Seal | None:
        return read_seal(self._folder)

    def half_built(self) -> int | None:
        progress = self._progress()
        return int(progress["done"]) if progress is not None else None

    def search_dense(
        self, queries: FloatMatrix, limit: int, where: Where | None = None, *, exact: bool = False
    ) -> list[Hits]:
        params = search_params(self._params, exact=exact, filtered=bool(where))
        return self._search(queries.tolist(), DENSE, limit, where, params)

    def search_bm25(
        self, queries: Sequence[SparseVector], limit: int, where: Where | None = None
    ) -> list[Hits]:
        return self._search([_to_qdrant(query) for query in queries], BM25, limit, where, None)

    def passages(self, ids: Sequence[str]) -> Mapping[str, StoredPassage]:
        records = self._retrieve(ids, with_payload=True, with_vector=False)
        return {
            to_chunk_id(point.id): stored_passage(point.id, json.loads(point.payload[_PASSAGE]))
            for point in records
        }

    def vectors(self, ids: Sequence[str]) -> Mapping[str, Sequence[float]]:
        records = self._retrieve(ids, with_payload=False, with_vector=[DENSE])
        return {to_chunk_id(point.id): point.vector[DENSE] for point in records}

    def ids(self) -> Iterator[PointIds]:
        import qdrant_edge as qdrant

        offset, first = None, True
        while first or offset is not None:
            first = False
            request = qdrant.ScrollRequest(
                offset=offset, limit=_SCROLL_POINTS, with_payload=False, with_vector=False
            )
            records, offset = self._shard.scroll(request)
            yield np.array([record.id for record in records], dtype=np.uint64)

    def count(self) -> int:
        import qdrant_edge as qdrant

        return int(self._shard.count(qdrant.CountRequest(exact=True)))

    def size_bytes(self) -> int | None:
        return folder_bytes(self._folder) if self._folder.is_dir() else None

    def drop(self) -> None:
        self.close_shard()
        # Moved aside first: nobody can open a folder that is half deleted.
        aside = self._folder.with_name(f"{self._folder.name}.{os.getpid()}.old")
        try:
            self._folder.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside)

    def close(self) -> None:
        """An unfinished build stays where it is, for the next `begin`."""
        self.close_shard()
        self._plan = None
        self._lock.release()

    def close_shard(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    @property
    def _shard(self) -> Any:
        if self._open is None:
            if self.sealed() is None:
                raise IndexMismatchError(f"no index at {self._folder}; run: {REBUILD}")
            self._open = _load(self._folder)
        return self._open

    def _go_on(self, plan: BuildPlan) -> int:
        """Opens what a killed build of the same plan left; 0 where there is nothing to go on."""
        progress = self._progress()
        if progress is None or progress["plan"] != plan.to_json():
            return 0
        try:
            self._open = _load(self._building)
        except IndexMismatchError:
            return 0
        done = int(progress["done"])
        if self.count() < done:
            self.close_shard()
            return 0
        return done

    def _progress(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self._building / _PROGRESS).read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _record(self, done: int) -> None:
        """Flushes first: the record must never promise what a kill would take away."""
        assert self._plan is not None
        self._shard.flush()
        progress = {"plan": self._plan.to_json(), "done": done}
        replace_file(self._building / _PROGRESS, json.dumps(progress) + "\n")
        self._durable = done

    def _remove_old(self) -> None:
        for path in self._folder.parent.glob(f"{self._folder.name}.*.old"):
            shutil.rmtree(path, ignore_errors=True)

    def _retrieve(self, ids: Sequence[str], **wanted: Any) -> list[Any]:
        return list(self._shard.retrieve([to_number(i) for i in ids], **wanted))

    def _search(
        self, queries: Sequence[Any], using: str, limit: int, where: Where | None, params: Any
    ) -> list[Hits]:
        import qdrant_edge as qdrant

        chosen = terms_filter(where)
        found: list[Hits] = []
        for start in range(0, len(queries), _QUERY_BATCH):
            requests = [
                qdrant.QueryRequest(
                    limit=limit,
                    query=qdrant.Query.Nearest(query, using=using),
                    filter=chosen,
                    params=params,
                    with_payload=False,
                    with_vector=False,
                )
                for query in queries[start : start + _QUERY_BATCH]
            ]
            answers = self._shard.query_batch(qdrant.QueryBatchRequest(requests))
            found += [[(to_chunk_id(hit.id), hit.score) for hit in hits] for hits in answers]
        return found


def _packed(payload: Mapping[str, Any]) -> dict[str, Any]:
    """All but the terms as one string: the engine takes in a value of a payload in microseconds,
    and eight of them took a third of the build."""
    rest = {name: value for name, value in payload.items() if name != TERMS}
    return {_PASSAGE: json.dumps(rest, ensure_ascii=False), TERMS: payload.get(TERMS, [])}


def _load(folder: Path) -> Any:
    """Opens a shard; what the engine cannot read is an index error (it panics, or raises)."""
    import qdrant_edge as qdrant

    try:
        return qdrant.EdgeShard.load(str(folder))
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise IndexMismatchError(
            f"index {folder} cannot be opened ({reason}); run: {REBUILD}"
        ) from error


def _to_qdrant(vector: SparseVector) -> Any:
    import qdrant_edge as qdrant

    return qdrant.SparseVector(vector.indices.tolist(), vector.values.tolist())
