"""Removing what retention lists: one step a thing, each safe to repeat after a crash."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params
from rag.release import registry
from rag.release.registry import fetched_bundles, mlflow_client
from rag.release.retention import Kind, Removal
from rag.release.steps import Step
from rag.release.store import local_folder


def removal_steps(
    artifacts: Artifacts, params: Params, removals: Sequence[Removal]
) -> tuple[Step, ...]:
    """A step `kind name` for each removal, in their order."""
    return tuple(_step(artifacts, params, removal) for removal in removals)


def _step(artifacts: Artifacts, params: Params, removal: Removal) -> Step:
    def act() -> None:
        _ACTS[removal.kind](artifacts, params, removal.name)

    return Step(f"{removal.kind} {removal.name}", act)


def _remove_version(_: Artifacts, params: Params, version: str) -> None:
    """Looks at the aliases once more: MLflow would delete a champion's version with its alias."""
    pointing = [alias for alias, to in registry.aliases(params).items() if to == version]
    if pointing:
        raise ReleaseError(
            f"version {version} became {', '.join(pointing)} meanwhile and was not removed; "
            "run `ragloop prune` again"
        )
    with _already_gone():
        mlflow_client().delete_model_version(params.release.name, version)


def _remove_model(_: Artifacts, params: Params, model_id: str) -> None:
    with _already_gone():
        model = mlflow_client().get_logged_model(model_id)
        _delete_files(model.artifact_location)
        mlflow_client().delete_logged_model(model_id)


def _remove_run(_: Artifacts, params: Params, run_id: str) -> None:
    """Its files go now; its row in the store waits for `mlflow gc`, as that of a model does."""
    with _already_gone():
        run = mlflow_client().get_run(run_id)
        _delete_files(run.info.artifact_uri)
        mlflow_client().delete_run(run_id)


def _remove_collection(_: Artifacts, params: Params, name: str) -> None:
    from rag.retrieval.index_alias import drop_collection

    drop_collection(params.index, name)


def _remove_index(artifacts: Artifacts, _: Params, name: str) -> None:
    from rag.retrieval.index_removal import remove_index

    remove_index(artifacts.index_folder, name)


def _remove_bundle(artifacts: Artifacts, _: Params, name: str) -> None:
    shutil.rmtree(fetched_bundles(artifacts) / name, ignore_errors=True)


def _remove_scratch(artifacts: Artifacts, params: Params, path: str) -> None:
    folder, _, name = path.rpartition("/")
    if artifacts.state / folder == artifacts.index_folder:
        _remove_index(artifacts, params, name)
    else:
        shutil.rmtree(artifacts.state / path, ignore_errors=True)


_ACTS: Mapping[Kind, Callable[[Artifacts, Params, str], None]] = {
    "version": _remove_version,
    "model": _remove_model,
    "run": _remove_run,
    "collection": _remove_collection,
    "index": _remove_index,
    "bundle": _remove_bundle,
    "scratch": _remove_scratch,
}


@contextmanager
def _already_gone() -> Iterator[None]:
    """What is not there needs not be removed: a prune that was cut short did it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _delete_files(location: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(location).delete_artifacts()
    folder = local_folder(location)
    if folder is not None:
        with contextlib.suppress(OSError):  # of a run or model that has other files beside these
            folder.parent.rmdir()
