"""What MLflow keeps of the gate and the ledger: the inputs of a decision, and the last row.

The ledger is a file of one machine. MLflow's copy of its head shows when its last rows were
removed, and the inputs lie with the run that they are of, so a decision can be made again anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import ReleaseError
from rag.params import Params
from rag.records import sorted_json

HEAD_TAG = "ragloop.ledger_head"
_FOLDER = "gate"
_ID_LENGTH = 16


def keep_inputs(run_id: str, folder: Path, files: Mapping[str, str]) -> dict[str, Any]:
    """Logs the inputs of a decision to its run; returns `{"folder", "files"}` for the ledger.

    The folder is named by their hashes, so another decision of the same run leaves them alone.
    """
    import mlflow

    name = hashlib.sha256(sorted_json(dict(files)).encode()).hexdigest()[:_ID_LENGTH]
    target = f"{_FOLDER}/{name}"
    mlflow.MlflowClient().log_artifacts(run_id, str(folder), target)
    return {"folder": target, "files": dict(files)}


def fetch_inputs(row: Mapping[str, Any], target: Path) -> Path:
    """Copies the inputs of a ledger row's decision into `target`; returns their folder."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if "inputs" not in row:
        raise ReleaseError(f"row {row.get('sequence')} of the ledger keeps no inputs")
    folder = row["inputs"]["folder"]
    try:
        found = mlflow.artifacts.download_artifacts(
            run_id=row["run_id"], artifact_path=folder, dst_path=str(target)
        )
    except (MlflowException, OSError) as error:
        raise ReleaseError(
            f"MLflow has no {folder} of run {row['run_id']}: the decision cannot be made again "
            f"({str(error).splitlines()[0][:120]})"
        ) from None
    return Path(found)


def mirror_row(params: Params, row: Mapping[str, Any]) -> None:
    """Names the row as the ledger's last on the registered model, and logs it to its run."""
    import mlflow

    client = mlflow.MlflowClient()
    if row.get("run_id"):
        client.log_dict(row["run_id"], dict(row), f"ledger/row-{row['sequence']}.json")
    head = f"{row['sequence']}:{row['hash']}"
    if mirrored_head(params) is not None or row.get("version"):
        client.set_registered_model_tag(params.release.name, HEAD_TAG, head)


def mirrored_head(params: Params) -> str | None:
    """`sequence:hash` of the last row that MLflow was told of; None where it was told of none."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model = mlflow.MlflowClient().get_registered_model(params.release.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    found = (model.tags or {}).get(HEAD_TAG)
    return str(found) if found else None
