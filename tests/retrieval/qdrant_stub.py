"""A small Qdrant server on loopback, and a proxy in front of it that drops connections.

The stub answers the REST calls that the index makes with `qdrant-client`'s in-memory engine behind
them. The proxy reads one request at a time and fails the ones that a test names.
"""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models

Fault = Literal["cut request", "no answer", "half an answer", "busy", "refuse"]


class QdrantStub:
    """State and answers; `upserted` counts how often each point id was written."""

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.upserted: Counter[int] = Counter()
        self.requests: Counter[str] = Counter()
        self.largest_request = 0
        self.field_indexes: list[str] = []
        self.collections: dict[str, Any] = {}
        self._snapshots: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and result; a result of type bytes is sent as it is."""
        parts = path.strip("/").split("/")
        name, rest = (parts[1] if len(parts) > 1 else ""), "/".join(parts[2:])
        rest = rest or ("every alias" if parts == ["aliases"] else "")
        key = f"{method} {re.sub('snapshots/.+', 'snapshots/*', rest)}"
        with self._lock:
            self.requests[key] += 1
            self.largest_request = max(self.largest_request, len(body))
            if key == "POST snapshots/*":
                return 200, self._recover(name, body)
            if key == "GET snapshots/*":
                return 200, self._snapshots[parts[3]]
            call = self._calls[key]
            is_one = name not in ("", "aliases")
            needs_collection = is_one and key not in ("GET exists", "PUT ", "DELETE ")
            if needs_collection and not self.client.collection_exists(name):
                return 404, f"Collection `{name}` does not exist!"
            if key == "PUT " and self.client.collection_exists(name):
                return 409, f"Collection `{name}` already exists!"
            return 200, call(name, json.loads(body) if body else {})

    @property
    def _calls(self) -> Mapping[str, Callable[[str, Any], Any]]:
        client = self.client
        done = {"operation_id": 0, "status": "completed"}
        return {
            "GET ": self._describe,
            "POST ": self._change_aliases,
            "GET every alias": lambda *_: client.get_aliases().model_dump(),
            "GET aliases": lambda name, _: client.get_collection_aliases(name).model_dump(),
            "GET exists": lambda name, _: {"exists": client.collection_exists(name)},
            "PUT ": self._create,
            "DELETE ": lambda name, _: client.delete_collection(name),
            "PUT index": lambda _, tree: self.field_indexes.append(tree["field_name"]) or done,
            "PUT points": self._upsert,
            "POST points": self._retrieve,
            "POST points/delete": lambda name, tree: client.delete(
                name, models.PointIdsList.model_validate(tree)
            ).model_dump(mode="json"),
            "POST points/count": lambda name, tree: client.count(
                name, count_filter=models.CountRequest.model_validate(tree).filter
            ).model_dump(),
            "POST points/scroll": self._scroll,
            "POST points/query/batch": self._query,
            "POST snapshots": self._save,
            "DELETE snapshots/*": lambda *_: bool(self._snapshots.pop("one.snapshot")),
        }

    def _change_aliases(self, _: str, tree: Any) -> bool:
        actions = models.ChangeAliasesOperation.model_validate(tree).actions
        return self.client.update_collection_aliases(actions)

    def _describe(self, name: str, _: Any) -> Any:
        if not name:
            return self.client.get_collections().model_dump()
        return self.client.get_collection(name).model_dump(mode="json")

    def _create(self, name: str, tree: Any) -> Any:
        self.collections[name] = tree
        wanted = models.CreateCollection.model_validate(tree)
        return self.client.create_collection(
            name, vectors_config=wanted.vectors, sparse_vectors_config=wanted.sparse_vectors
        )

    def _upsert(self, name: str, tree: Any) -> Any:
        points = models.PointsList.model_validate(tree).points
        self.upserted.update(int(point.id) for point in points)
        return self.client.upsert(name, points).model_dump(mode="json")

    def _retrieve(self, name: str, tree: Any) -> Any:
        asked = models.PointRequest.model_validate(tree)
        records = self.client.retrieve(
            name,
            asked.ids,
            with_payload=asked.with_payload,
            with_vectors=asked.with_vector or False,
        )
        return _dump(records)

    def _scroll(self, name: str, tree: Any) -> Any:
        page = models.ScrollRequest.model_validate(tree)
        records, following = self.client.scroll(
            name,
            limit=page.limit or 10,
            offset=page.offset,
            with_payload=page.with_payload or False,
        )
        return {"points": _dump(records), "next_page_offset": following}

    def _query(self, name: str, tree: Any) -> Any:
        searches = models.QueryRequestBatch.model_validate(tree).searches
        # This engine is always exact, and warns of parameters that ask for it.
        plain = [search.model_copy(update={"params": None}) for search in searches]
        return _dump(self.client.query_batch_points(name, plain))

    def _save(self, name: str, _: Any) -> Any:
        records, _ = self.client.scroll(name, limit=10**6, with_vectors=True)
        content = {"settings": self.collections[name], "points": _dump(records)}
        self._snapshots["one.snapshot"] = json.dumps(content).encode()
        return {"name": "one.snapshot", "creation_time": None, "size": 0, "checksum": None}

    def _recover(self, name: str, multipart: bytes) -> bool:
        content = json.loads(multipart[multipart.index(b"\r\n\r\n") + 4 :].partition(b"\r\n--")[0])
        self.client.delete_collection(name)
        self._create(name, content["settings"])
        points = [models.PointStruct.model_validate(point) for point in content["points"]]
        self.client.upsert(name, points)
        return True


def _dump(items: list[Any]) -> list[Any]:
    return [item.model_dump(mode="json", exclude_none=True) for item in items]


@contextmanager
def serve_stub() -> Iterator[tuple[QdrantStub, int]]:
    """A stub and the port where it listens."""
    stub = QdrantStub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True
                return
            status, result = stub.answer(self.command, urlsplit(self.path).path, body)
            tree = {"result": result, "status": "ok", "time": 0.0}
            if status != 200:
                tree = {"status": {"error": result}, "time": 0.0}
            content = result if isinstance(result, bytes) else json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_any

        def log_message(self, *_: Any) -> None: ...

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield stub, port


class Faults:
    """Which requests fail and how: `plan` maps the number of a request of `kind` to its fault."""

    def __init__(self, plan: Mapping[int, Fault] | Callable[[int], Fault | None]) -> None:
        self._plan = plan if callable(plan) else plan.get
        self._seen = 0
        self._lock = threading.Lock()
        self.happened: list[Fault] = []

    def next(self, head: bytes) -> Fault | None:
        """The fault of this request; only upserts of points are counted."""
        if not re.match(rb"PUT /collections/[^/]+/points\?", head):
            return None
        with self._lock:
            self._seen += 1
            fault = self._plan(self._seen)
            if fault is not None:
                self.happened.append(fault)
            return fault


@contextmanager
def serve_proxy(target: int, faults: Faults) -> Iterator[int]:
    """A proxy on the way to port `target`; yields its own port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            stream = self.request.makefile("rb")
            while (message := _read_message(stream)) is not None:
                head, body = message
                fault = faults.next(head)
                if fault == "refuse":
                    return
                if fault == "busy":
                    self.request.sendall(b"HTTP/1.1 503 busy\r\ncontent-length: 0\r\n\r\n")
                    continue
                with socket.create_connection(("127.0.0.1", target)) as server:
                    if fault == "cut request":
                        server.sendall(head + body[: len(body) // 2])
                        return
                    server.sendall(head + body)
                    answer = _read_message(server.makefile("rb"))
                if answer is None or fault == "no answer":
                    return
                whole = b"".join(answer)
                if fault == "half an answer":
                    self.request.sendall(whole[: len(whole) // 2])
                    return
                self.request.sendall(whole)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with _serving(Server(("127.0.0.1", 0), Handler)) as port:
        yield port


def _read_message(stream: Any) -> tuple[bytes, bytes] | None:
    """Head and body of one HTTP message; None at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return head, stream.read(int(length[1])) if length else b""


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
