"""The registry: releases as MLflow model versions, and the alias that says which one is live.

The alias `champion` of the registered model `release.name` is the one truth. MLflow changes an
alias without comparing and keeps no history, so an alias is moved by `rag.release.switch` alone,
and the ledger keeps the history. The alias is read by `get_model_version_by_alias`: a search
returns versions with empty aliases.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params
from rag.release.bundle import MANIFEST
from rag.release.card import METRIC_TAGS, decision_tags, read_metrics, summarise_metrics
from rag.release.card_facts import card_facts
from rag.release.gate import Decision
from rag.release.model_card import CARD, description, model_card
from rag.release.packaging import log_release
from rag.release.redaction import without_credentials
from rag.release.reviewed import read_comparison
from rag.release.store import local_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"
#: Tag of a version from its creation until its ledger row is written: without a row, an orphan.
PENDING = "pending"
#: Tag with the hash of the bundle's manifest, and so of every file that answers.
BUNDLE = "bundle"
_BUNDLE = Path("artifacts", "bundle")  # in a logged model


@dataclass(frozen=True)
class ReleaseVersion:
    """A registered release; `tags` say what it was made from and its verdict, `created` is UTC."""

    name: str
    version: str
    run_id: str
    model_id: str
    created: str
    tags: Mapping[str, str]

    @property
    def index(self) -> str | None:
        """Name of the index that it answers from; None where the tag is missing."""
        return self.tags.get("fingerprint")

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{self.name}/{self.version}"


def register(
    artifacts: Artifacts,
    params: Params,
    *,
    run_id: str,
    tags: Mapping[str, str],
    decision: Decision | None = None,
) -> str:
    """Logs the release as a model of the run, registers it, and returns its version.

    A run that was registered before gives the same version again, so a flow that was interrupted
    may repeat this. `tags` name what the release was made from: `run_key`, `fingerprint`,
    `data_hash`, `git_commit`, `dvc_lock`.
    """
    client = mlflow_client()
    name = params.release.name
    version = _version_of_run(client, name, run_id)
    if version is None:
        _create_registered_model(client, name)
        model_id, manifest_hash = log_release(client, artifacts, params, run_id)
        # MLflow lists tags in the order they are set: the verdict first.
        verdict = _verdict(read_metrics(artifacts.metrics), decision)
        version = str(
            client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run_id,
                model_id=model_id,
                tags=_plain({**verdict, **tags, BUNDLE: manifest_hash, PENDING: "true"}),
            ).version
        )
    elif decision is None and client.get_model_version(name, version).description:
        return version
    describe(artifacts, params, version, decision=decision)
    return version


def describe(
    artifacts: Artifacts, params: Params, version: str, *, decision: Decision | None
) -> None:
    """Writes a version's card, here and in its run, and its metric and decision tags."""
    client = mlflow_client()
    release = get_release(params, version)
    metrics = read_comparison(client, release.run_id) or read_metrics(artifacts.metrics)
    record = decision.to_json() if decision else None
    facts = card_facts(
        artifacts, params, metrics, decision=record, lineage=release.tags, version=version
    )
    client.log_text(release.run_id, model_card(facts), CARD)
    client.update_model_version(release.name, version, description(facts))
    for key, value in _plain(_verdict(metrics, decision)).items():
        client.set_model_version_tag(release.name, version, key, value)


def champion(params: Params) -> ReleaseVersion | None:
    """The live release; None while there is none."""
    return aliased(params, CHAMPION)


def challenger(params: Params) -> ReleaseVersion | None:
    """The release that waits for a decision; None when there is none."""
    return aliased(params, CHALLENGER)


def aliased(params: Params, alias: str) -> ReleaseVersion | None:
    """The version that an alias points at; None while it points at none."""
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow_client().get_model_version_by_alias(params.release.name, alias)
    except MlflowException as error:
        missing_model = error.error_code == "RESOURCE_DOES_NOT_EXIST"
        missing_alias = error.error_code == "INVALID_PARAMETER_VALUE"
        if missing_model or missing_alias:
            return None
        raise
    return _release(found)


def get_release(params: Params, version: str) -> ReleaseVersion:
    """A version by its number; ReleaseError when there is no such version."""
    from mlflow.exceptions import MlflowException

    name = params.release.name
    try:
        return _release(mlflow_client().get_model_version(name, version))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ReleaseError(
            f"{name} has no version {version!r}; `ragloop releases` lists them"
        ) from None


def all_releases(params: Params) -> list[ReleaseVersion]:
    """Every version, oldest first; none where nothing is registered yet."""
    found: list[Any] = []
    token = None
    while True:
        page = mlflow_client().search_model_versions(
            f"name = '{params.release.name}'", page_token=token
        )
        found += page
        token = page.token
        if not token:
            return sorted(map(_release, found), key=lambda release: int(release.version))


def aliases(params: Params) -> dict[str, str]:
    """Version by alias."""
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow_client().get_registered_model(params.release.name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in found.items()}


def releases(params: Params) -> list[dict[str, Any]]:
    """Rows of `ragloop releases`, newest first: version, created, decision, metrics, alias, ..."""
    pointing = aliases(params)
    rows = []
    for release in all_releases(params):
        metrics = {name: release.tags[name] for name in METRIC_TAGS if name in release.tags}
        rows.append(
            {
                "version": release.version,
                "alias": sorted(key for key, to in pointing.items() if to == release.version),
                "created": release.created,
                "decision": release.tags.get("decision", ""),
                "metrics": metrics,
                "run_id": release.run_id,
                "run_key": release.tags.get("run_key", ""),
                "fingerprint": release.tags.get("fingerprint", ""),
            }
        )
    return sorted(rows, key=lambda row: -int(str(row["version"])))


def local_bundle(artifacts: Artifacts, params: Params, version: str) -> Path:
    """The bundle of a version as a local folder; one on a remote store is fetched once and kept.

    ReleaseError where the store no longer has it.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    release = get_release(params, version)
    try:
        here = bundle_here(artifacts, release)
        if here is not None:
            return here
        kept = fetched_bundles(artifacts) / release.model_id
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            uri = f"models:/{release.model_id}"
            fetched = mlflow.artifacts.download_artifacts(uri, dst_path=scratch)
            (Path(fetched) / _BUNDLE).rename(kept)
    except (MlflowException, OSError) as error:
        raise ReleaseError(
            f"the files of version {version} cannot be had from the MLflow store "
            f"({str(error).partition(chr(10))[0]}); `ragloop releases` lists other versions"
        ) from error
    return kept


def bundle_here(artifacts: Artifacts, release: ReleaseVersion) -> Path | None:
    """The bundle of a version where it is on this machine; None where it has to be fetched."""
    kept = fetched_bundles(artifacts) / release.model_id
    if (kept / MANIFEST).is_file():
        return kept
    folder = local_folder(mlflow_client().get_logged_model(release.model_id).artifact_location)
    return folder / _BUNDLE if folder is not None else None


def fetched_bundles(artifacts: Artifacts) -> Path:
    """Where bundles of a remote store are kept, each in a folder named after its logged model."""
    return artifacts.state / "releases"


def _version_of_run(client: MlflowClient, name: str, run_id: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return max((str(item.version) for item in found), key=int, default=None)


def _create_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name,
            description="Question answering over our own documents, retrained by ragloop. "
            "The alias `champion` is live; each version's description is its card: what the gate "
            "decided and why, scores, limits, data. The tag `decision` tells versions apart.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _release(found: Any) -> ReleaseVersion:
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, tz=UTC)
    return ReleaseVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id,
        # A SQLite store leaves model_id empty; the source says the same.
        model_id=found.model_id or found.source.removeprefix("models:/"),
        created=created.isoformat(timespec="seconds"),
        tags=dict(found.tags),
    )


def _verdict(metrics: Mapping[str, Any], decision: Decision | None) -> dict[str, str]:
    outcome = decision_tags(decision.to_json()) if decision else {}
    return {**outcome, **summarise_metrics(metrics)}


def _plain(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(without_credentials(value)) for key, value in tags.items()}


def mlflow_client() -> MlflowClient:
    """A client of the store that was configured; ReleaseError where none was."""
    import mlflow

    if not os.environ.get("MLFLOW_TRACKING_URI"):  # MLflow would make a store of its own here
        raise ReleaseError("no MLflow store is chosen: call rag.tracking.configure first")
    return mlflow.MlflowClient()
