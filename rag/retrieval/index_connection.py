"""Calls to a Qdrant server: the connection, and retries where a call was lost on its way.

Every call that is repeated may be: point ids are chunk ids, so an upsert whose answer was lost
changes nothing when it is sent again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rag.errors import RagError

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

TIMEOUT_SECONDS = 60
ATTEMPTS = 7
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.25, 8.0
_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS, _SERVER_ERROR = 408, 429, 500


def connect(url: str, api_key: str | None) -> QdrantClient:
    """A client of a server, or of `:memory:`, the client's own engine without a server.

    Raises RagError where no server answers or it refuses the key.
    """
    from qdrant_client import QdrantClient
    from qdrant_client.http.exceptions import ApiException

    if url == ":memory:":
        return QdrantClient(":memory:")
    client = QdrantClient(
        url=url, api_key=api_key, timeout=TIMEOUT_SECONDS, check_compatibility=False
    )
    try:
        client.get_collections()
    except ApiException as error:
        client.close()
        raise RagError(
            f"no Qdrant server to use at {safe_url(url)} ({_reason(error)}); "
            "check index.url and RAGLOOP_QDRANT_API_KEY, or set index.kind to edge"
        ) from error
    return client


def safe_url(url: str) -> str:
    """The URL without user and password, for messages and logs."""
    return re.sub(r"//[^/@]*@", "//", url)


class ServerCalls:
    """Calls methods of a client; what a lost connection or a busy server fails is tried again."""

    def __init__(
        self,
        client: QdrantClient,
        *,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self._attempts = attempts
        self._sleep = sleep

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """`client.method(...)`; raises RagError when the last attempt fails too.

        An error that says that the request itself is wrong is raised at once.
        """
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

        wait = _FIRST_WAIT_SECONDS
        for attempt in range(1, self._attempts + 1):
            try:
                return getattr(self.client, method)(*arguments, **named)
            except ResourceExhaustedResponse as error:
                failure: Exception = error
                pause = float(error.retry_after_s or wait)
            except ApiException as error:
                if isinstance(error, UnexpectedResponse) and not _is_passing(error.status_code):
                    raise RagError(f"Qdrant refused {method}: {_reason(error)}") from error
                failure, pause = error, wait
            if attempt < self._attempts:
                self._sleep(min(pause, _LONGEST_WAIT_SECONDS))
            wait *= 2
        raise RagError(
            f"Qdrant did not answer {method} in {self._attempts} attempts ({_reason(failure)}); "
            "when the server is back, run the same command: it goes on where it stopped"
        ) from failure

    def close(self) -> None:
        self.client.close()


def _is_passing(status: int | None) -> bool:
    """Whether an HTTP status says that the same request may work later."""
    return (
        status is None
        or status >= _SERVER_ERROR
        or status
        in (
            _REQUEST_TIMEOUT,
            _TOO_MANY_REQUESTS,
        )
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
