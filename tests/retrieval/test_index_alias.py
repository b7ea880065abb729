"""The alias that follows the champion on a Qdrant server, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rag.params import IndexParams
from rag.retrieval.index_alias import (
    alias_target,
    collection_names,
    drop_collection,
    point_alias,
)
from rag.retrieval.index_server import PREFIX
from tests.retrieval.qdrant_stub import QdrantStub, serve_stub

ONE, TWO = "1" * 16, "2" * 16


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[QdrantStub, IndexParams]]:
    with serve_stub() as (stub, port):
        for name in (PREFIX + ONE, PREFIX + TWO, "of somebody else"):
            stub.client.create_collection(name, vectors_config={})
        yield stub, IndexParams(kind="server", url=f"http://127.0.0.1:{port}")


def test_the_alias_moves_in_one_call_and_goes_where_there_is_no_collection(
    served: tuple[QdrantStub, IndexParams],
) -> None:
    stub, params = served
    assert collection_names(params) == {ONE, TWO}
    assert alias_target(params, "champion") is None
    for name in (ONE, TWO, TWO):
        point_alias(params, "champion", name)
        assert alias_target(params, "champion") == name
    assert stub.requests["POST "] == 2, "what points right already is left alone"
    point_alias(params, "champion", "3" * 16)
    assert alias_target(params, "champion") is None, "better none than that of another release"


def test_a_collection_that_an_alias_points_at_is_not_dropped(
    served: tuple[QdrantStub, IndexParams],
) -> None:
    stub, params = served
    point_alias(params, "champion", ONE)
    assert not drop_collection(params, ONE)
    assert drop_collection(params, TWO)
    assert drop_collection(params, TWO), "it is gone already"
    assert collection_names(params) == {ONE}
    assert stub.client.collection_exists("of somebody else")
