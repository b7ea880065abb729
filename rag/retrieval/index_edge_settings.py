"""How an Edge shard is laid out and searched, from a build plan and the index parameters."""

from __future__ import annotations

from typing import Any

from rag.params import IndexParams
from rag.retrieval.index import BM25, DENSE, BuildPlan
from rag.retrieval.index_payload import TERMS, Where, where_terms

#: Kilobytes of vectors below which the engine would leave out what the plan asks for.
_ALWAYS_BUILD = 1


def shard_config(plan: BuildPlan) -> Any:
    """`EdgeConfig` of a new shard; without `hnsw` no graph is built, which is most of the work."""
    import qdrant_edge as qdrant

    how = plan.how
    # Cold: read through the memory map as needed. Cached: read ahead when the shard is opened.
    memory = qdrant.Memory.Cold if how["on_disk"] else qdrant.Memory.Cached
    graph = how["search"] == "hnsw"
    plain = not graph and how["quantization"] == "none"
    return qdrant.EdgeConfig(
        vectors={
            DENSE: qdrant.EdgeVectorParams(plan.dimension, qdrant.Distance.Dot, memory=memory)
        },
        sparse_vectors={
            BM25: qdrant.EdgeSparseVectorParams(
                modifier=qdrant.Modifier.Idf, memory=qdrant.Memory.Cached
            )
        },
        hnsw_config=qdrant.HnswIndexConfig(
            m=how["m"] if graph else 0,
            ef_construct=how["ef_construct"] if graph else 100,
            full_scan_threshold=_ALWAYS_BUILD,
            max_indexing_threads=0,
            memory=qdrant.Memory.Cached,
        ),
        quantization_config=_quantization(how["quantization"]),
        optimizers=qdrant.EdgeOptimizersConfig(indexing_threshold=None if plain else _ALWAYS_BUILD),
        payload_memory=memory,
        wal_enabled=False,
    )


def search_params(params: IndexParams, *, exact: bool, filtered: bool) -> Any:
    """`SearchParams` of a dense search.

    A graph that was built for all points is no way to the few that a filter leaves: measured, half
    of them are missed. So a filtered search is exact where there is a graph.
    """
    import qdrant_edge as qdrant

    graph = params.search == "hnsw"
    if exact or (graph and filtered) or (not graph and params.quantization == "none"):
        return qdrant.SearchParams(exact=True)
    quantization = None
    if params.quantization != "none":
        quantization = qdrant.QuantizationSearchParams(
            rescore=params.rescore, oversampling=params.oversampling
        )
    return qdrant.SearchParams(hnsw_ef=params.hnsw.ef if graph else None, quantization=quantization)


def terms_index(params: IndexParams) -> Any:
    """The keyword index that filters use."""
    import qdrant_edge as qdrant

    memory = qdrant.Memory.Cold if params.on_disk else qdrant.Memory.Cached
    return qdrant.KeywordIndexParams(memory=memory)


def terms_filter(where: Where | None) -> Any:
    """`Filter` of the points that have one term of each group; None where all points will do."""
    import qdrant_edge as qdrant

    if not where:
        return None
    return qdrant.Filter(
        must=[
            qdrant.FieldCondition(TERMS, match=qdrant.MatchAny(terms))
            for terms in where_terms(where)
        ]
    )


def _quantization(kind: str) -> Any:
    import qdrant_edge as qdrant

    memory = qdrant.Memory.Cached
    if kind == "scalar":
        return qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8, memory=memory)
    if kind == "binary":
        return qdrant.BinaryQuantizationConfig(memory=memory)
    return None
