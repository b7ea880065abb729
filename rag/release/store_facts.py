"""What the MLflow store holds, looked at without changing it.

An onlooker makes and migrates nothing. MLflow's own client creates a store that is missing, so a
SQL store is read by plain queries on a connection that cannot write; only a tracking server is
asked through the client. Nothing here imports MLflow where the store is a database.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params
from rag.release.bundle import MANIFEST
from rag.release.mirror import HEAD_TAG
from rag.release.redaction import without_credentials
from rag.release.registry import ReleaseVersion, fetched_bundles
from rag.release.store import PROJECT, SQLITE, local_folder, tracking_uri

if TYPE_CHECKING:
    from sqlalchemy import Connection

_BUNDLE = Path("artifacts", "bundle")
_DELETED = "Deleted_Internal"  # what MLflow calls the stage of a version that was deleted
_REVISION = re.compile(r"^revision\s*=\s*['\"](\w+)['\"]", re.MULTILINE)
_DOWN_REVISION = re.compile(r"^down_revision\s*=\s*(.*)$", re.MULTILINE)
_CONNECT_SECONDS = 3


@dataclass(frozen=True)
class RunFacts:
    """A run of this project; times are in seconds since the epoch, `ended` None while it runs."""

    run_id: str
    status: str
    started: float
    ended: float | None


@dataclass(frozen=True)
class StoreFacts:
    """The registered model and our runs; `locations` say where the files of a logged model are."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, ReleaseVersion] = field(default_factory=dict)
    locations: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[RunFacts] = ()
    ledger_head: str | None = None

    def aliased(self, alias: str) -> ReleaseVersion | None:
        """The version behind an alias; None without the alias, and where it dangles."""
        return self.versions.get(self.aliases.get(alias, ""))

    def bundle_of(self, artifacts: Artifacts, release: ReleaseVersion) -> Path | None:
        """Where the files of a version should be on this machine; None where they are elsewhere."""
        kept = fetched_bundles(artifacts) / release.model_id
        if (kept / MANIFEST).is_file():
            return kept
        folder = local_folder(self.locations.get(release.model_id, ""))
        return folder / _BUNDLE if folder is not None else None


def read_store(artifacts: Artifacts, params: Params) -> StoreFacts:
    """The store of `params` as it is now; ReleaseError where it is missing or does not answer."""
    uri = tracking_uri(artifacts, params)
    if uri.startswith(("http://", "https://")):
        return _ask_server(artifacts, params)
    with connected(uri) as database:
        return _read_tables(database, params.release.name, known_project(artifacts))


def schema_revision(uri: str) -> str | None:
    """The migration that a SQL store is at; None where it has no such table."""
    with connected(uri) as database:
        from sqlalchemy.exc import OperationalError, ProgrammingError

        try:
            row = _query(database, "select version_num from alembic_version")
        except (OperationalError, ProgrammingError):
            return None
        return str(row[0][0]) if row else None


def schema_heads(folder: Path) -> set[str]:
    """Revisions of the migrations in `folder` that no other one follows: what a store should be at.

    Read from the files: importing a package's models would load all of it.
    """
    made, followed = set(), set()
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        made.update(_REVISION.findall(text))
        for earlier in _DOWN_REVISION.findall(text):
            followed.update(re.findall(r"['\"](\w+)['\"]", earlier))
    return made - followed


def migrations_of(package: str, *parts: str) -> Path:
    """The folder of a package's migrations, found without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ReleaseError(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*parts)


def known_project(artifacts: Artifacts) -> str | None:
    """The project's own name where it has one yet; see `rag.release.store.project_id`."""
    try:
        return (artifacts.state / "project").read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


@contextmanager
def connected(uri: str) -> Iterator[Connection]:
    """A connection that cannot write; ReleaseError where the database is missing or refuses."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    where = without_credentials(uri)
    try:
        if uri.startswith(SQLITE):
            path = Path(uri.removeprefix(SQLITE))
            if not path.is_file():
                raise ReleaseError(f"{path} is missing")
            engine = create_engine("sqlite://", creator=lambda: _sqlite(path), poolclass=NullPool)
        else:
            timeout = {"connect_timeout": _CONNECT_SECONDS} if "postgres" in uri else {}
            engine = create_engine(uri, poolclass=NullPool, connect_args=timeout)
            if engine.dialect.name == "postgresql":
                engine = engine.execution_options(postgresql_readonly=True)
        with engine.connect() as connection:
            yield connection
    except (SQLAlchemyError, ImportError) as error:
        reason = without_credentials(str(error)).partition("\n")[0]
        raise ReleaseError(f"{where} does not answer: {reason[:200]}") from None


def _sqlite(path: Path) -> sqlite3.Connection:
    """A reader; of a database whose journal is a log, without making that log where none has it."""
    with path.open("rb") as file:
        header = file.read(20)
    is_logged = header[18:20] == b"\x02\x02"
    is_at_rest = is_logged and not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if is_at_rest else ''}"
    return sqlite3.connect(uri, uri=True, timeout=_CONNECT_SECONDS, check_same_thread=False)


def _read_tables(database: Connection, name: str, project: str | None) -> StoreFacts:
    tags: dict[str, dict[str, str]] = {}
    for version, key, value in _query(
        database, "select version, key, value from model_version_tags where name = :name", name=name
    ):
        tags.setdefault(str(version), {})[key] = value
    versions = {
        str(version): ReleaseVersion(
            name,
            str(version),
            run_id or "",
            (source or "").removeprefix("models:/"),
            datetime.fromtimestamp((created or 0) / 1000, tz=UTC).isoformat(timespec="seconds"),
            tags.get(str(version), {}),
        )
        for version, source, run_id, created in _query(
            database,
            "select version, source, run_id, creation_time from model_versions "
            "where name = :name and current_stage <> :deleted",
            name=name,
            deleted=_DELETED,
        )
    }
    aliases = _query(
        database,
        "select alias, version from registered_model_aliases where name = :name",
        name=name,
    )
    heads = _query(
        database,
        "select value from registered_model_tags where name = :name and key = :key",
        name=name,
        key=HEAD_TAG,
    )
    runs = _query(
        database,
        "select r.run_uuid, r.status, r.start_time, r.end_time from runs r "
        "join tags t on t.run_uuid = r.run_uuid where t.key = :key and t.value = :project "
        "and r.lifecycle_stage = 'active' order by r.start_time",
        key=PROJECT,
        project=project or "",
    )
    locations = _query(
        database,
        "select model_id, artifact_location from logged_models where lifecycle_stage = 'active'",
    )
    return StoreFacts(
        aliases={alias: str(version) for alias, version in aliases},
        versions=versions,
        locations=dict(map(tuple, locations)),
        runs=tuple(
            RunFacts(run_id, status, start / 1000, end / 1000 if end else None)
            for run_id, status, start, end in runs
        ),
        ledger_head=heads[0][0] if heads else None,
    )


def _query(database: Connection, statement: str, **values: Any) -> Sequence[Any]:
    from sqlalchemy import text

    return database.execute(text(statement), values).fetchall()


def _ask_server(artifacts: Artifacts, params: Params) -> StoreFacts:
    from mlflow.exceptions import MlflowException

    from rag.release import registry, store
    from rag.release.mirror import mirrored_head

    try:
        store.configure(artifacts, params)  # of a server: asks whether it answers
        client = registry.mlflow_client()
        versions = {item.version: item for item in registry.all_releases(params)}
        locations = {
            item.model_id: client.get_logged_model(item.model_id).artifact_location
            for item in versions.values()
        }
        experiment = client.get_experiment_by_name(params.tracking.experiment)
        chosen = f"tags.`{PROJECT}` = '{known_project(artifacts) or ''}'"
        runs = client.search_runs([experiment.experiment_id], chosen) if experiment else []
        return StoreFacts(
            aliases=registry.aliases(params),
            versions=versions,
            locations=locations,
            runs=tuple(
                RunFacts(
                    run.info.run_id,
                    run.info.status,
                    run.info.start_time / 1000,
                    run.info.end_time / 1000 if run.info.end_time else None,
                )
                for run in runs
            ),
            ledger_head=mirrored_head(params),
        )
    except MlflowException as error:
        reason = without_credentials(str(error)).partition("\n")[0]
        raise ReleaseError(f"the MLflow server does not answer: {reason[:200]}") from None
