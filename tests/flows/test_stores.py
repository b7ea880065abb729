"""A registry that is away is not replaced by an empty one."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import stores
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params
from rag.release import ledger


@pytest.mark.parametrize("left", [None, b""])
def test_a_store_that_is_away_while_the_ledger_tells_of_releases_is_an_error(
    tmp_path: Path, left: bytes | None
) -> None:
    """SQLite leaves an empty file for whoever asked while it was away."""
    artifacts = Artifacts(tmp_path)
    ledger.append(artifacts.ledger, {"version": 1, "champion": 1, "outcome": "PROMOTE"})
    store = artifacts.state / "mlflow.db"
    if left is not None:
        store.write_bytes(left)
    with pytest.raises(RagError, match=r"mlflow\.db is gone, .* put it back"):
        stores.initialise(artifacts, Params())
    assert store.exists() is (left is not None), "nothing was made in its place"
