"""The numbers of a run with the champion's among them, as the run keeps them: `comparison.json`.

The stage's metrics.json knows no champion; what the flow computed with it is kept here, so that a
release's card says the same as its report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILE = "comparison.json"


def log_comparison(client: MlflowClient, run_id: str, metrics: Mapping[str, Any]) -> None:
    """Keeps the content of metrics.json, made again with the champion's answers."""
    client.log_dict(run_id, dict(metrics), _FILE)


def read_comparison(client: MlflowClient, run_id: str) -> dict[str, Any] | None:
    """What `log_comparison` kept; None for a run that was not compared yet."""
    import mlflow

    if not any(item.path == _FILE for item in client.list_artifacts(run_id)):
        return None
    return dict(mlflow.artifacts.load_dict(f"runs:/{run_id}/{_FILE}"))
