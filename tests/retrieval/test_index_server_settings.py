"""rag/retrieval/index_server_settings.py: what a server is told to keep, and in what portions."""

from __future__ import annotations

import numpy as np
import pytest

from rag.params import HnswParams, IndexParams
from rag.retrieval import index_server_settings
from rag.retrieval.bm25 import SparseVector
from rag.retrieval.embeddings import EmbeddingFacts
from rag.retrieval.index import build_plan
from rag.retrieval.index_server_settings import collection_settings, request_batches, search_params

FACTS = EmbeddingFacts("a" * 64, "encoder", 5, 2, {})
PLAIN = IndexParams(kind="server", url="http://localhost")


def test_points_are_split_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point is 128 + 22 · 2 + 34 · 1 bytes and its payload, which for {} is 2 bytes."""
    monkeypatch.setattr(index_server_settings, "REQUEST_BYTES", 2 * 208 + 10)
    terms = SparseVector(np.array([1], dtype=np.uint32), np.array([1.0], dtype=np.float32))
    payloads: list[dict[str, str]] = [{}, {}, {}, {"a": "x" * 1000}, {}, {}]
    split = list(request_batches(2, [terms] * 6, payloads))
    assert split == [(0, 2), (2, 3), (3, 4), (4, 6)]


def test_exact_search_pays_for_no_graph() -> None:
    settings = collection_settings(build_plan(PLAIN, FACTS))
    dense = settings["vectors_config"]["dense"]
    assert dense.hnsw_config.m == 0
    assert dense.on_disk is settings["on_disk_payload"] is True
    assert dense.quantization_config is None
    assert search_params(PLAIN, exact=False).exact is True


def test_graph_and_quantisation_are_as_the_params_say() -> None:
    hnsw = HnswParams(m=8, ef_construct=64, ef=32)
    changes = {"search": "hnsw", "hnsw": hnsw, "quantization": "scalar", "on_disk": False}
    params = PLAIN.model_copy(update=changes)
    settings = collection_settings(build_plan(params, FACTS))
    dense = settings["vectors_config"]["dense"]
    assert (dense.hnsw_config.m, dense.hnsw_config.ef_construct) == (8, 64)
    assert dense.on_disk is settings["on_disk_payload"] is False
    assert dense.quantization_config.scalar.type == "int8"
    search = search_params(params, exact=False)
    assert search.hnsw_ef == 32
    assert not search.exact
    assert (search.quantization.rescore, search.quantization.oversampling) == (True, 3.0)
    assert search_params(params, exact=True).exact is True
    binary = PLAIN.model_copy(update={"quantization": "binary"})
    settings = collection_settings(build_plan(binary, FACTS))
    assert settings["vectors_config"]["dense"].quantization_config.binary is not None
    assert not search_params(binary, exact=False).exact
