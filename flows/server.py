"""Prefect's API for one run: the server that is there already, or one of our own for the time.

Prefect would start an ephemeral server by itself, but inside our process group, so Ctrl-C would end
it before the run could be reported as cancelled; and it would outlive us when we are killed.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from flows import lock, processes
from rag.artifacts import Artifacts
from rag.errors import RagError

HOST = "127.0.0.1"
START_SECONDS = 300.0
_SEND_SECONDS = 10.0
_API = "PREFECT_API_URL"
_OWN = "RAGLOOP_OWN_PREFECT"
#: A server for one run schedules nothing and shows no pages.
_TEMPORARY: Mapping[str, str] = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}


@contextmanager
def prefect_api(artifacts: Artifacts) -> Iterator[None]:
    """PREFECT_API_URL for the block: the user's, that of a running `ragloop up`, or a new one."""
    if os.environ.get(_API):
        yield
        return
    served = up_addresses(artifacts).get("prefect")
    if served and is_healthy(f"{served}/api/health"):
        with own_api(served):
            yield
        return
    port = free_port()
    address = f"http://{HOST}:{port}"
    log = artifacts.state / "logs" / "prefect.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    variables = {**os.environ, **_TEMPORARY}
    command = prefect_command(port)
    with (
        processes.running(command, artifacts.root, log=log, variables=variables) as program,
        own_api(address),
    ):
        # What the run needs, imported meanwhile: prefect not before it can read the address.
        import_module("prefect.flows")
        import_module("mlflow")
        await_healthy(program, f"{address}/api/health", "Prefect's server", log=log)
        try:
            yield
        finally:
            _send_what_waits()


@contextmanager
def own_api(address: str) -> Iterator[None]:
    """Points this process and its children at a Prefect server of ours for the block."""
    variables = {_API: f"{address}/api", _OWN: "true"}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def is_own() -> bool:
    """Whether the Prefect server in use holds the runs of this project only."""
    return os.environ.get(_OWN) == "true"


def _send_what_waits() -> None:
    """Log lines and events of this process, before the server that takes them is stopped."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    EventsWorker.drain_all(timeout=_SEND_SECONDS)


def prefect_command(port: int) -> list[str]:
    """Prefect's server on this machine only."""
    return [
        *(sys.executable, "-m", "prefect", "server", "start"),
        *("--host", HOST, "--port", str(port)),
    ]


def up_lock(artifacts: Artifacts) -> Path:
    """Held by `ragloop up` for as long as it runs."""
    return artifacts.state / "up.lock"


def up_record(artifacts: Artifacts) -> Path:
    """Where `ragloop up` says what it serves; valid while it holds its lock."""
    return artifacts.state / "up.json"


def up_addresses(artifacts: Artifacts) -> dict[str, str]:
    """What a running `ragloop up` serves: `{"prefect": url, "mlflow": url}`; else empty."""
    found = lock.holder(up_lock(artifacts))
    if found is None or not found.is_here or not found.is_alive:
        return {}
    try:
        return dict(json.loads(up_record(artifacts).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def is_healthy(url: str) -> bool:
    """Whether a server answers at this address."""
    try:
        # No proxy: the address is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def await_healthy(
    program: processes.Program,
    url: str,
    name: str,
    *,
    log: Path | None = None,
) -> None:
    """Waits until a server answers; RagError when it ends or takes too long."""
    where = f" (log: {log})" if log else ""
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(url):
        if program.exit_code is not None:
            raise RagError(f"{name} ended with exit code {program.exit_code}{where}")
        if time.monotonic() > deadline:
            raise RagError(f"{name} does not answer after {START_SECONDS:.0f} s{where}")
        time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_port_free(port: int) -> bool:
    """Whether we could listen on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
