"""Snapshots of a collection over the server's own HTTP calls, as files that are streamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import RagError
from rag.params import IndexParams
from rag.retrieval.index_connection import ServerCalls, connect, safe_url
from rag.retrieval.index_server import PREFIX

if TYPE_CHECKING:
    import httpx

_SNAPSHOT = "collection.snapshot"
_BLOCK_BYTES = 1 << 20


def download_snapshot(params: IndexParams, name: str, folder: Path) -> None:
    """Lets the server make a snapshot, fetches it into `folder`, and removes it there."""
    collection = PREFIX + name
    calls = ServerCalls(connect(*_address(params)))
    try:
        made = calls.call("create_snapshot", collection, wait=True)
        try:
            with (
                _http(params) as http,
                http.stream("GET", f"/collections/{collection}/snapshots/{made.name}") as answer,
                (folder / _SNAPSHOT).open("wb") as file,
            ):
                _raise_for_status(answer, "give its snapshot")
                for block in answer.iter_bytes(_BLOCK_BYTES):
                    file.write(block)
        finally:
            calls.call("delete_snapshot", collection, made.name, wait=True)
    finally:
        calls.close()


def upload_snapshot(params: IndexParams, name: str, folder: Path) -> None:
    """Puts the collection of `name` back as the snapshot in `folder` has it."""
    with _http(params) as http, (folder / _SNAPSHOT).open("rb") as file:
        answer = http.post(
            f"/collections/{PREFIX}{name}/snapshots/upload",
            params={"priority": "snapshot", "wait": "true"},
            files={"snapshot": (_SNAPSHOT, file)},
        )
        _raise_for_status(answer, "take the snapshot")


def _address(params: IndexParams) -> tuple[str, str | None]:
    assert params.url is not None
    return params.url, os.environ.get("RAGLOOP_QDRANT_API_KEY")


def _http(params: IndexParams) -> httpx.Client:
    import httpx

    url, key = _address(params)
    headers = {"api-key": key} if key else {}
    # No limit on the time for one block: a server packs a large collection before it answers.
    return httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(30.0, read=None))


def _raise_for_status(answer: httpx.Response, task: str) -> None:
    if answer.is_error:
        text = " ".join(answer.read().decode(errors="replace").split())[:200]
        raise RagError(
            f"the Qdrant server at {safe_url(str(answer.url.copy_with(path='/', query=None)))} "
            f"does not {task} (status {answer.status_code}: {text})"
        )
