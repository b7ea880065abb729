"""The registry: releases as MLflow model versions, and the alias that says which one is live.

The alias `champion` of the registered model `release.name` is the one truth. MLflow changes an
alias without comparing and keeps no history, so `switch_champion` compares before and after, the
caller holds the lock, and the ledger keeps the history. The alias is read by
`get_model_version_by_alias`: a search returns versions with empty aliases.
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
from rag.reading.reader import read_manifest, reading_facts
from rag.release.bundle import MANIFEST
from rag.release.card import METRIC_TAGS, model_card, read_metrics, summarise_metrics
from rag.release.gate import Decision
from rag.release.packaging import log_release
from rag.release.redaction import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"


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
    client = _client()
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
                tags=_plain({**verdict, **tags, "bundle": manifest_hash}),
            ).version
        )
    elif decision is None and client.get_model_version(name, version).description:
        return version
    describe(artifacts, params, version, decision=decision)
    return version


def describe(
    artifacts: Artifacts, params: Params, version: str, *, decision: Decision | None
) -> None:
    """Writes a version's card and its metric and decision tags, as a reviewer sees them first."""
    client = _client()
    release = get_release(params, version)
    metrics = read_metrics(artifacts.metrics)
    record = decision.to_json() if decision else None
    reading = reading_facts(params.reader, read_manifest(artifacts.reader))
    card = model_card(params, metrics, record, release.tags, reading)
    client.update_model_version(release.name, version, card)
    for key, value in _plain(_verdict(metrics, decision)).items():
        client.set_model_version_tag(release.name, version, key, value)


def champion(params: Params) -> ReleaseVersion | None:
    """The live release; None while there is none."""
    return _by_alias(params, CHAMPION)


def challenger(params: Params) -> ReleaseVersion | None:
    """The release that waits for a decision; None when there is none."""
    return _by_alias(params, CHALLENGER)


def set_challenger(params: Params, version: str) -> None:
    """Points the alias `challenger` at a version."""
    get_release(params, version)
    _client().set_registered_model_alias(params.release.name, CHALLENGER, version)


def switch_champion(params: Params, version: str, *, expected: str | None) -> ReleaseVersion:
    """Makes a version champion if the champion is still `expected` (None: there is none yet).

    The caller holds the project's lock. ReleaseError, with nothing changed, when the champion is
    another one than expected or the version does not exist.
    """
    client = _client()
    release = get_release(params, version)
    current = champion(params)
    found = current.version if current else None
    if found != expected:
        raise ReleaseError(
            f"champion changed: it is {_spoken(found)}, the comparison was with "
            f"{_spoken(expected)}; run `ragloop run` to compare again"
        )
    client.set_registered_model_alias(release.name, CHAMPION, version)
    after = champion(params)
    if after is None or after.version != version:
        raise ReleaseError(
            f"champion changed while version {version} was promoted: it is "
            f"{_spoken(after.version if after else None)}; look at `ragloop releases`"
        )
    waiting = challenger(params)
    if waiting and waiting.version == version:
        client.delete_registered_model_alias(release.name, CHALLENGER)
    return after


def get_release(params: Params, version: str) -> ReleaseVersion:
    """A version by its number; ReleaseError when there is no such version."""
    from mlflow.exceptions import MlflowException

    name = params.release.name
    try:
        return _release(_client().get_model_version(name, version))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ReleaseError(
            f"{name} has no version {version!r}; `ragloop releases` lists them"
        ) from None


def releases(params: Params) -> list[dict[str, Any]]:
    """Rows of `ragloop releases`, newest first: version, created, decision, metrics, alias, ..."""
    from mlflow.exceptions import MlflowException

    client = _client()
    name = params.release.name
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return []
    rows = []
    for found in _all_versions(client, name):
        release = _release(found)
        metrics = {name: release.tags[name] for name in METRIC_TAGS if name in release.tags}
        rows.append(
            {
                "version": release.version,
                "alias": sorted(key for key, to in aliases.items() if str(to) == release.version),
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
    """The bundle of a version as a local folder; one on a remote store is fetched once and kept."""
    import mlflow

    release = get_release(params, version)
    kept = artifacts.state / "releases" / release.model_id
    if not (kept / MANIFEST).is_file():
        uri = f"models:/{release.model_id}"
        location = _client().get_logged_model(release.model_id).artifact_location
        if location.startswith("file:"):  # on this machine already: nothing to copy
            return Path(mlflow.artifacts.download_artifacts(uri)) / "artifacts" / "bundle"
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            fetched = mlflow.artifacts.download_artifacts(uri, dst_path=scratch)
            (Path(fetched) / "artifacts" / "bundle").rename(kept)
    return kept


def _version_of_run(client: MlflowClient, name: str, run_id: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return max((str(item.version) for item in found), key=int, default=None)


def _create_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name,
            description="Question answering over our own documents, retrained by ragloop. "
            "The alias `champion` is live; each version's description says why it was promoted.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _all_versions(client: MlflowClient, name: str) -> list[Any]:
    versions: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        versions += page
        token = page.token
        if not token:
            return versions


def _by_alias(params: Params, alias: str) -> ReleaseVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        found = _client().get_model_version_by_alias(params.release.name, alias)
    except MlflowException as error:
        missing_model = error.error_code == "RESOURCE_DOES_NOT_EXIST"
        missing_alias = error.error_code == "INVALID_PARAMETER_VALUE"
        if missing_model or missing_alias:
            return None
        raise
    return _release(found)


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
    outcome = {"decision": decision.outcome.value} if decision else {}
    return {**outcome, **summarise_metrics(metrics)}


def _plain(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(without_credentials(value)) for key, value in tags.items()}


def _spoken(version: str | None) -> str:
    return f"version {version}" if version else "none"


def _client() -> MlflowClient:
    import mlflow

    if not os.environ.get("MLFLOW_TRACKING_URI"):  # MLflow would make a store of its own here
        raise ReleaseError("no MLflow store is chosen: call rag.tracking.configure first")
    return mlflow.MlflowClient()
