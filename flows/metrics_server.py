"""Serves the metrics on this machine until it is stopped.

    python -m flows.metrics_server --port 9464

`ragloop up` keeps it running where `up.metrics_port` names a port.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec

from flows import server, settings
from flows.metrics import InstallationCollector
from flows.supervisor import Part
from rag.artifacts import Artifacts
from rag.errors import InputError
from rag.params import Params, load_params

DEFAULT_PORT = 9464
NAME = "metrics"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves `/metrics` of the project in the working directory; ends on SIGTERM and Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    port = parser.parse_args(arguments).port
    from prometheus_client import CollectorRegistry, start_http_server

    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.silence(offline=True)
    registry = CollectorRegistry()
    registry.register(InstallationCollector(artifacts, params, dict(os.environ)))
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    serving, _ = start_http_server(port, addr=server.HOST, registry=registry)
    stop.wait()
    serving.shutdown()


def parts(params: Params) -> list[Part]:
    """This server as a part of `ragloop up`; none where `up.metrics_port` is null.

    InputError where prometheus-client is not installed.
    """
    port = params.up.metrics_port
    if port is None:
        return []
    if find_spec("prometheus_client") is None:
        raise InputError(
            f"up.metrics_port is {port}, and prometheus-client is not installed",
            hint='run: pip install "ragloop[metrics]", or set up.metrics_port to null',
        )
    address = f"http://{server.HOST}:{port}"
    command = [sys.executable, "-m", "flows.metrics_server", "--port", str(port)]
    # Any other page is a scrape, which reads the whole installation.
    return [Part(NAME, command, f"{address}/favicon.ico", f"{address}/metrics")]


if __name__ == "__main__":
    main()
