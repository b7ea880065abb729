"""Turns a bundle into an MLflow model: models from code, typed, with an example, without pickle.

`save_model` has the shape of an MLflow flavor, so `Model.log(flavor=packaging, ...)` logs it. What
differs from `mlflow.pyfunc.log_model`: nothing is run to guess requirements or output types, and no
path of this machine stays in the model's files.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.artifacts import Artifacts
from rag.params import Params
from rag.release.bundle import MANIFEST, library_versions, write_bundle
from rag.weights import file_sha256

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG_PREFIX = "ragloop."
#: Begins the name of the folder in which a bundle is written before it is logged.
SCRATCH = "bundle."

#: A question in the form that `predict` takes; shown on the model's page.
INPUT_EXAMPLE = ["Where can I find the rules?"]

_BUNDLE_TAG = f"{TAG_PREFIX}bundle"
_EXAMPLE_FILE = "input_example.json"
_SERVING_FILE = "serving_input_example.json"


def log_release(
    client: MlflowClient, artifacts: Artifacts, params: Params, run_id: str
) -> tuple[str, str]:
    """Logs the bundle as a model of the run: its id, and the hash of the bundle's manifest.

    A model that an interrupted flow logged whole is taken as it is.
    """
    from mlflow.models import Model

    run = client.get_run(run_id)
    experiment, name = run.info.experiment_id, params.release.name
    artifacts.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=artifacts.state, prefix=SCRATCH) as scratch:
        bundle = Path(scratch) / "bundle"
        write_bundle(artifacts, params, bundle)
        manifest_hash = file_sha256(bundle / MANIFEST)
        logged = f"source_run_id = '{run_id}' AND name = '{name}'"
        for model in client.search_logged_models([experiment], logged):
            if model.status == "READY" and model.tags.get(_BUNDLE_TAG) == manifest_hash:
                return str(model.model_id), manifest_hash
        # Created here, because Model.log would take the default experiment and not the run's.
        model = client.create_logged_model(
            experiment,
            name=name,
            source_run_id=run_id,
            tags={_BUNDLE_TAG: manifest_hash},
            params=run.data.params,
            model_type="release",
        )
        Model.log(
            artifact_path=None,
            name=name,
            flavor=sys.modules[__name__],
            run_id=run_id,
            model_id=model.model_id,
            validate_serving_input=False,
            bundle=bundle,
        )
    return str(model.model_id), manifest_hash


def save_model(path: str, mlflow_model: Any, bundle: Path, **_: Any) -> None:
    """Writes the model of `bundle` into `path`; called by `mlflow.models.Model.log`."""
    import mlflow

    import rag

    package = Path(rag.__file__).parent
    requirements = [f"{name}=={version}" for name, version in library_versions().items()]
    mlflow.pyfunc.save_model(
        path,
        python_model=str(package / "release" / "model.py"),
        artifacts={"bundle": str(bundle)},
        code_paths=[str(package)],
        pip_requirements=requirements,
        mlflow_model=mlflow_model,
    )
    folder = Path(path)
    mlflow_model.signature.outputs = _output_schema()
    mlflow_model.saved_input_example_info = {
        "artifact_path": _EXAMPLE_FILE,
        "serving_input_path": _SERVING_FILE,
        "type": "json_object",
    }
    (folder / _EXAMPLE_FILE).write_text(json.dumps(INPUT_EXAMPLE), encoding="utf-8")
    (folder / _SERVING_FILE).write_text(json.dumps({"inputs": INPUT_EXAMPLE}), encoding="utf-8")
    flavor = mlflow_model.flavors["python_function"]
    flavor["artifacts"]["bundle"]["uri"] = flavor["artifacts"]["bundle"]["path"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    mlflow_model.artifact_path = None
    mlflow_model.save(str(folder / "MLmodel"))


def _output_schema() -> Any:
    """What `rag.release.model.Release.predict` gives for each question."""
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Object, Property

    passage = Object(
        [
            Property("chunk_id", DataType.string),
            Property("document_id", DataType.string),
            Property("text", DataType.string),
            Property("score", DataType.double),
            Property("rank", DataType.long),
            # Null for a reader that weighs no passages.
            Property("posterior", DataType.double, required=False),
        ]
    )
    return Schema(
        [
            ColSpec(DataType.string, "answer"),
            ColSpec(DataType.double, "score"),
            ColSpec(DataType.boolean, "abstained"),
            ColSpec(Array(passage), "evidence"),
        ]
    )
