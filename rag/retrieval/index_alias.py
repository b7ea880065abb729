"""The alias on a Qdrant server that follows the champion, and the collections that stand behind it.

The alias is for other programs that search the server themselves: ragloop opens the collection that
a release names. Qdrant drops the aliases of a collection that is deleted without a word, so a
collection that any alias points at is never deleted here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rag.errors import ParamsError
from rag.params import IndexParams
from rag.retrieval.index_connection import ServerCalls, connect
from rag.retrieval.index_server import PREFIX


def point_alias(params: IndexParams, alias: str, name: str | None) -> None:
    """Points the alias at the collection of an index, in one call; at none where there is none."""
    from qdrant_client import models

    with _calls(params) as calls:
        held = _target(calls, alias)
        wanted = None
        if name is not None and calls.call("collection_exists", PREFIX + name):
            wanted = PREFIX + name
        if held == wanted:
            return
        operations: list[models.AliasOperations] = []
        if held is not None:
            gone = models.DeleteAlias(alias_name=alias)
            operations.append(models.DeleteAliasOperation(delete_alias=gone))
        if wanted is not None:
            made = models.CreateAlias(collection_name=wanted, alias_name=alias)
            operations.append(models.CreateAliasOperation(create_alias=made))
        calls.call("update_collection_aliases", operations)


def alias_target(params: IndexParams, alias: str) -> str | None:
    """Name of the index that the alias points at; None where it points at none."""
    with _calls(params) as calls:
        target = _target(calls, alias)
    return target.removeprefix(PREFIX) if target is not None else None


def collection_names(params: IndexParams) -> set[str]:
    """Names of the indexes on the server, whoever built them."""
    with _calls(params) as calls:
        found = calls.call("get_collections").collections
    return {item.name.removeprefix(PREFIX) for item in found if item.name.startswith(PREFIX)}


def drop_collection(params: IndexParams, name: str) -> bool:
    """Deletes the collection of an index unless an alias points at it; whether it is gone."""
    with _calls(params) as calls:
        collection = PREFIX + name
        if not calls.call("collection_exists", collection):
            return True
        if calls.call("get_collection_aliases", collection).aliases:
            return False
        calls.call("delete_collection", collection)
    return True


def _target(calls: ServerCalls, alias: str) -> str | None:
    found = calls.call("get_aliases").aliases
    return next((str(item.collection_name) for item in found if item.alias_name == alias), None)


@contextmanager
def _calls(params: IndexParams) -> Iterator[ServerCalls]:
    if params.url is None:
        raise ParamsError("index.url: kind 'server' needs a URL")
    calls = ServerCalls(connect(params.url, os.environ.get("RAGLOOP_QDRANT_API_KEY")))
    try:
        yield calls
    finally:
        calls.close()
