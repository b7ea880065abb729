"""How a collection is laid out, filled and searched, from a plan and the index parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rag.params import IndexParams
from rag.retrieval.bm25 import SparseVector
from rag.retrieval.index import BM25, DENSE, BuildPlan
from rag.retrieval.index_payload import TERMS, Where, where_terms

#: A request stays under 5 MB. A number of a vector takes up to 22 characters of JSON; a term has
#: an id of up to 10 digits and a weight.
REQUEST_BYTES = 4_500_000
_NUMBER_BYTES, _TERM_BYTES, _POINT_BYTES = 22, 34, 128


def collection_settings(plan: BuildPlan) -> dict[str, Any]:
    """Arguments of `create_collection`; without `hnsw` no graph is built."""
    from qdrant_client import models

    how = plan.how
    graph = models.HnswConfigDiff(m=0)
    if how["search"] == "hnsw":
        graph = models.HnswConfigDiff(m=how["m"], ef_construct=how["ef_construct"])
    return {
        "vectors_config": {
            DENSE: models.VectorParams(
                size=plan.dimension,
                distance=models.Distance.DOT,
                on_disk=how["on_disk"],
                hnsw_config=graph,
                quantization_config=_quantization(how["quantization"]),
            )
        },
        "sparse_vectors_config": {
            BM25: models.SparseVectorParams(
                modifier=models.Modifier.IDF,
                index=models.SparseIndexParams(on_disk=how["on_disk"]),
            )
        },
        "on_disk_payload": how["on_disk"],
    }


def search_params(params: IndexParams, *, exact: bool) -> Any:
    """A filter needs no exact search here: the server builds graph links for indexed fields."""
    from qdrant_client import models

    graph = params.search == "hnsw"
    if exact or (not graph and params.quantization == "none"):
        return models.SearchParams(exact=True)
    quantization = None
    if params.quantization != "none":
        quantization = models.QuantizationSearchParams(
            rescore=params.rescore, oversampling=params.oversampling
        )
    return models.SearchParams(hnsw_ef=params.hnsw.ef if graph else None, quantization=quantization)


def terms_filter(where: Where | None) -> Any:
    from qdrant_client import models

    if not where:
        return None
    return models.Filter(
        must=[
            models.FieldCondition(key=TERMS, match=models.MatchAny(any=terms))
            for terms in where_terms(where)
        ]
    )


def request_batches(
    dimension: int, sparse: Sequence[SparseVector], payloads: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, int]]:
    """(start, stop) of points that go into one request; one that is too large goes alone."""
    start, used = 0, 0
    for position, (terms, payload) in enumerate(zip(sparse, payloads, strict=True)):
        size = _POINT_BYTES + _NUMBER_BYTES * dimension + _TERM_BYTES * len(terms.indices)
        size += len(json.dumps(payload).encode())
        if used and used + size > REQUEST_BYTES:
            yield start, position
            start, used = position, 0
        used += size
    if used:
        yield start, len(payloads)


def _quantization(kind: str) -> Any:
    from qdrant_client import models

    if kind == "scalar":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    if kind == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None
