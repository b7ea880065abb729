"""What there is of this project: versions, logged models, runs, indexes, bundles, and their sizes.

Only what belongs to runs of this project is listed: on a store or a server that several projects
share, the rest is not ours to judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.artifacts import Artifacts, folder_bytes
from rag.errors import IndexMismatchError
from rag.params import Params
from rag.release import registry
from rag.release.packaging import SCRATCH, TAG_PREFIX
from rag.release.registry import PENDING, ReleaseVersion, fetched_bundles, mlflow_client
from rag.release.served import index_names
from rag.release.store import PROJECT, local_folder, project_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 1000
_INDEX_TAG = f"{TAG_PREFIX}fingerprint"


@dataclass(frozen=True)
class Version:
    """A registered version; `indexes` are the names under which its vectors may be searched."""

    version: str
    run_id: str
    model_id: str
    pending: bool = False
    indexes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Model:
    """A logged model of a run: a release, or a checkpoint; not `whole` while it is written."""

    model_id: str
    run_id: str
    is_release: bool = True
    whole: bool = True
    bytes: int | None = None


@dataclass(frozen=True)
class Run:
    """A run; `started` is in milliseconds since the epoch, `index` the one that it published."""

    run_id: str
    started: int
    running: bool = False
    index: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Inventory:
    """Everything that retention may remove, and what it must not; sizes are None where unknown.

    `working` names the index of the embeddings in data/, `scratch` folders that killed processes
    left, by their path below the state folder.
    """

    aliases: Mapping[str, str]
    versions: tuple[Version, ...] = ()
    models: tuple[Model, ...] = ()
    runs: tuple[Run, ...] = ()
    indexes: Mapping[str, int] = field(default_factory=dict)
    collections: frozenset[str] = frozenset()
    bundles: Mapping[str, int] = field(default_factory=dict)
    scratch: Mapping[str, int] = field(default_factory=dict)
    working: frozenset[str] = frozenset()


def read_inventory(artifacts: Artifacts, params: Params) -> Inventory:
    """The inventory at this moment; the caller holds the lock, so it stays true."""
    from rag.retrieval.index_removal import leftovers, local_indexes

    client = mlflow_client()
    experiment = _experiment(client, params)
    runs = own_runs(artifacts, params)
    ours = {run.run_id for run in runs}
    versions = tuple(
        _version(artifacts, release)
        for release in registry.all_releases(params)
        if release.run_id in ours
    )
    working = _working_index(artifacts, params)
    return Inventory(
        aliases=registry.aliases(params),
        versions=versions,
        models=tuple(model for model in _models(client, experiment) if model.run_id in ours),
        runs=runs,
        indexes=local_indexes(artifacts.index_folder),
        collections=_collections(params, runs, versions),
        bundles=_folders(fetched_bundles(artifacts), "m-*"),
        scratch={
            **_below("", _folders(artifacts.state, f"{SCRATCH}*")),
            **_below("releases/", _folders(fetched_bundles(artifacts), "tmp*")),
            **_below("index/", leftovers(artifacts.index_folder, working)),
        },
        working=working,
    )


def own_runs(artifacts: Artifacts, params: Params) -> tuple[Run, ...]:
    """The runs of this project that are not deleted."""
    client = mlflow_client()
    return tuple(_runs(client, _experiment(client, params), project_id(artifacts)))


def _experiment(client: MlflowClient, params: Params) -> str | None:
    found = client.get_experiment_by_name(params.tracking.experiment)
    return str(found.experiment_id) if found else None


def _runs(client: MlflowClient, experiment: str | None, project: str) -> Iterator[Run]:
    chosen = f"tags.`{PROJECT}` = '{project}'"
    for run in _pages(client.search_runs, experiment, filter_string=chosen):
        yield Run(
            run_id=run.info.run_id,
            started=run.info.start_time,
            running=run.info.status == "RUNNING",
            index=run.data.tags.get(_INDEX_TAG),
            bytes=_size(run.info.artifact_uri),
        )


def _models(client: MlflowClient, experiment: str | None) -> Iterator[Model]:
    for model in _pages(client.search_logged_models, experiment):
        yield Model(
            model_id=model.model_id,
            run_id=model.source_run_id or "",
            is_release=model.model_type == "release",
            whole=model.status == "READY",
            bytes=_size(model.artifact_location),
        )


def _pages(search: Any, experiment: str | None, **options: Any) -> Iterator[Any]:
    token = None
    while experiment is not None:
        page = search([experiment], max_results=_PAGE, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def _version(artifacts: Artifacts, release: ReleaseVersion) -> Version:
    return Version(
        release.version,
        release.run_id,
        release.model_id,
        pending=PENDING in release.tags,
        indexes=frozenset(index_names(artifacts, release)),
    )


def _working_index(artifacts: Artifacts, params: Params) -> frozenset[str]:
    from rag.retrieval.embeddings import read_facts
    from rag.retrieval.index import index_name

    try:
        return frozenset({index_name(params.index, read_facts(artifacts.embeddings))})
    except IndexMismatchError:  # nothing is embedded yet
        return frozenset()


def _collections(
    params: Params, runs: tuple[Run, ...], versions: tuple[Version, ...]
) -> frozenset[str]:
    """Those that a run of ours published: others may keep theirs on the same server."""
    if params.index.kind != "server":
        return frozenset()
    from rag.retrieval.index_alias import collection_names

    named = {run.index for run in runs} | {name for item in versions for name in item.indexes}
    return frozenset(name for name in collection_names(params.index) if name in named)


def _size(location: str) -> int | None:
    folder = local_folder(location)
    return folder_bytes(folder) if folder is not None else None


def _folders(folder: Path, pattern: str) -> dict[str, int]:
    return {path.name: folder_bytes(path) for path in sorted(folder.glob(pattern)) if path.is_dir()}


def _below(place: str, found: Mapping[str, int]) -> dict[str, int]:
    return {f"{place}{name}": size for name, size in found.items()}
