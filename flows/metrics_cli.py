"""The command `ragloop metrics`: calls one function and prints its text."""

from __future__ import annotations

import typer

from flows.options import Debug


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(metrics)


def metrics(debug: Debug = False) -> None:
    """Print metrics in Prometheus' text format: runs, decisions, champion, schedule, disk."""
    import os

    from flows import metrics as measured
    from flows import settings
    from rag.artifacts import Artifacts
    from rag.params import load_params

    environment = dict(os.environ)
    settings.silence(debug=debug, offline=True)
    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    print(measured.exposition(artifacts, params, environment), end="")
