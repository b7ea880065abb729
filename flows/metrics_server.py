"""Serves the metrics on this machine until it is stopped; `ragloop up` can keep it running.

python -m flows.metrics_server --port 9464
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Sequence

from flows import server, settings
from flows.metrics import InstallationCollector
from rag.artifacts import Artifacts
from rag.params import load_params

DEFAULT_PORT = 9464


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


if __name__ == "__main__":
    main()
