"""Where a release came from: read from the registry and the files of its run, and nothing else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows import dvc_files
from flows.lineage import DATA, FOLDER, FORMAT, LOCK, PARAMS, PIPELINE, RECORD
from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params

if TYPE_CHECKING:
    from mlflow.entities import Run

    from rag.release.registry import ReleaseVersion

_METRICS = "metrics.json"
_MAX_ANCESTORS = 50


@dataclass(frozen=True)
class Origin:
    """A release and what its run says of its making; `record` is empty where nothing was kept.

    `files` are texts by name: dvc.lock, dvc.yaml, params.yaml, raw.dvc. `metrics` is metrics.json.
    """

    release: ReleaseVersion
    tags: Mapping[str, str]
    record: Mapping[str, Any]
    files: Mapping[str, str]
    metrics: Mapping[str, Any]

    @property
    def commit(self) -> str:
        """The git commit, without the mark of a checkout that had changes."""
        return self.release.tags.get("git_commit", "none").removesuffix("-dirty")

    @property
    def is_recorded(self) -> bool:
        return bool(self.record)


def read_origin(artifacts: Artifacts, params: Params, version: str) -> Origin:
    """What is known of a version, given as its number, `champion` or `challenger`."""
    from rag import tracking

    tracking.configure(artifacts, params)
    release = find_release(params, version)
    run = _run_of(release)
    if run is None:
        return Origin(release, {}, {}, {}, {})
    with tempfile.TemporaryDirectory() as scratch:
        texts = dict(_texts(release.run_id, Path(scratch)))
    record = json.loads(texts.pop(RECORD, "{}"))
    if record and record.get("format") != FORMAT:
        raise ReleaseError(
            f"the lineage of version {release.version} has format {record.get('format')!r}, this "
            f"version reads {FORMAT}; use the ragloop that made it"
        )
    metrics = json.loads(texts.pop(_METRICS, "{}"))
    return Origin(release, dict(run.data.tags), record, texts, metrics)


def find_release(params: Params, version: str) -> ReleaseVersion:
    """A release by its number or its alias; ReleaseError where there is none."""
    from rag.release import registry

    aliases = {registry.CHAMPION: registry.champion, registry.CHALLENGER: registry.challenger}
    if version not in aliases:
        return registry.get_release(params, version)
    release = aliases[version](params)
    if release is None:
        raise ReleaseError(f"{params.release.name} has no {version}; `ragloop releases` lists all")
    return release


def describe(origin: Origin, params: Params) -> dict[str, Any]:
    """The lineage as plain JSON, from the release down to data, params and parents."""
    release, record = origin.release, origin.record
    tags = release.tags
    lock = origin.files.get(LOCK)
    data = record.get("data", {})
    return {
        "release": {
            "name": release.name,
            "version": release.version,
            "created": release.created,
            "decision": tags.get("decision"),
            "bundle_sha256": tags.get("bundle"),
        },
        "run": {
            "run_id": release.run_id,
            "run_key": tags.get("run_key"),
            "prefect_flow_run": tags.get("prefect_flow_run"),
            "dvc_exp": origin.tags.get("ragloop.dvc_exp"),
            "branch": origin.tags.get("ragloop.branch"),
        },
        "code": {
            "commit": origin.commit,
            "dirty": tags.get("git_commit", "").endswith("-dirty"),
            "uncommitted": record.get("uncommitted"),
        },
        "pipeline": {
            "dvc_lock_sha256": tags.get("dvc_lock"),
            "stages": [vars(stage) for stage in dvc_files.read_lock(lock)] if lock else [],
        },
        "data": {
            "hash": tags.get("data_hash"),
            "size": sum(facts["size"] for facts in data.values()),
            "files": [{"path": path, **facts} for path, facts in data.items()],
        },
        "params": _flat(yaml.safe_load(origin.files[PARAMS])) if PARAMS in origin.files else {},
        "index": {"fingerprint": tags.get("fingerprint")},
        "machine": record.get("machine"),
        "parents": {
            "champions": list(_ancestors(origin, params)),
            "models": record.get("models", []),
        },
        "recorded": origin.is_recorded,
    }


def _ancestors(origin: Origin, params: Params) -> Iterator[dict[str, Any]]:
    """The champion that the release was compared with, the champion of that one, and so on."""
    from rag.release import registry

    parent = origin.record.get("champion")
    for _ in range(_MAX_ANCESTORS):
        if parent is None:
            return
        try:
            release = registry.get_release(params, parent["version"])
        except ReleaseError:  # pruned
            yield {**parent, "created": None, "decision": None, "commit": None}
            return
        yield {
            **parent,
            "created": release.created,
            "decision": release.tags.get("decision"),
            "commit": release.tags.get("git_commit"),
        }
        with tempfile.TemporaryDirectory() as scratch:
            text = dict(_texts(release.run_id, Path(scratch))).get(RECORD, "{}")
        parent = json.loads(text).get("champion")


def _run_of(release: ReleaseVersion) -> Run | None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient().get_run(release.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _texts(run_id: str, scratch: Path) -> Iterator[tuple[str, str]]:
    """Name and text of the files that the run keeps of its making, those that are there."""
    import mlflow
    from mlflow import MlflowClient

    client = MlflowClient()
    present = {item.path for item in client.list_artifacts(run_id, FOLDER)}
    present |= {item.path for item in client.list_artifacts(run_id)}
    names = (LOCK, PIPELINE, PARAMS, DATA, RECORD)
    for path in [*(f"{FOLDER}/{name}" for name in names), _METRICS]:
        if path in present:
            local = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=path, dst_path=str(scratch)
            )
            yield Path(path).name, Path(local).read_text(encoding="utf-8")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
