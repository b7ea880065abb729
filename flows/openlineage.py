"""OpenLineage events of a run and its stages, for catalogues such as Marquez: off unless asked for.

`tracking.openlineage` is `file:///folder/events.jsonl`, one event a line, or a server's address.
Events follow the specification 2-0-2, https://openlineage.io/spec/2-0-2/OpenLineage.json. A stage
is a job; what dvc.lock says that it read and wrote are datasets, with DVC's hash as their version.
An event that cannot be delivered is told once and stops no training.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import yaml

from flows import dvc_files, terminal
from rag.artifacts import Artifacts
from rag.params import Params
from rag.release.redaction import without_credentials

EventType = Literal["START", "COMPLETE", "FAIL", "ABORT"]

#: The variable that holds a server's key; it is sent and never written.
API_KEY = "RAGLOOP_OPENLINEAGE_API_KEY"
JOB = "retrain"
_SPEC = "https://openlineage.io/spec"
_EVENT_SCHEMA = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = {
    "parent": "1-0-1/ParentRunFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
    "jobType": "2-0-3/JobTypeJobFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
}
_PATH = "/api/v1/lineage"
_TIMEOUT_SECONDS = 5.0


class Events:
    """The events of one run; `stage` observes a stage of it."""

    def __init__(self, root: Path, address: str | None, namespace: str) -> None:
        self._root = root.resolve()
        self._address = address
        self._namespace = namespace
        self._producer = f"pkg:pypi/ragloop@{_version()}"
        self._run_id = _flow_run_id()
        self._is_silent = False

    @contextmanager
    def run(self) -> Iterator[None]:
        """The events of the run that all stages belong to."""
        with self._job(self._run_id, JOB, {}):
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """START before the block; afterwards COMPLETE, FAIL, or ABORT where it was stopped."""
        parent = {
            "run": {"runId": self._run_id},
            "job": {"namespace": self._namespace, "name": JOB},
        }
        facets = {"parent": self._facet("parent", parent)}
        with self._job(str(uuid.uuid4()), f"{JOB}.{name}", facets, stage=name):
            yield

    @contextmanager
    def _job(
        self, run_id: str, job: str, facets: Mapping[str, Any], *, stage: str | None = None
    ) -> Iterator[None]:
        self._emit("START", run_id, job, facets, stage)
        try:
            yield
        except Exception as error:
            self._emit("FAIL", run_id, job, {**facets, **self._error(error)}, stage)
            raise
        except BaseException:
            self._emit("ABORT", run_id, job, facets, stage)
            raise
        self._emit("COMPLETE", run_id, job, facets, stage)

    def _emit(
        self,
        kind: EventType,
        run_id: str,
        job: str,
        facets: Mapping[str, Any],
        stage: str | None,
    ) -> None:
        if self._address is None:
            return
        job_type = {
            "processingType": "BATCH",
            "integration": "RAGLOOP",
            "jobType": "STAGE" if stage else "RUN",
        }
        inputs, outputs = self._datasets(stage, kind) if stage else ([], [])
        event = {
            "eventType": kind,
            "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "run": {"runId": run_id, "facets": dict(facets)},
            "job": {
                "namespace": self._namespace,
                "name": job,
                "facets": {"jobType": self._facet("jobType", job_type)},
            },
            "inputs": inputs,
            "outputs": outputs,
            "producer": self._producer,
            "schemaURL": _EVENT_SCHEMA,
        }
        try:
            deliver(self._address, event)
        except OSError as error:
            if not self._is_silent:
                reason = without_credentials(str(error))
                terminal.say(f"  [yellow]OpenLineage events cannot be delivered:[/] {reason}")
            self._is_silent = True

    def _datasets(self, stage: str, kind: EventType) -> tuple[list[Any], list[Any]]:
        """What the stage reads and writes; hashes only once dvc.lock has them of this run."""
        if kind == "COMPLETE":
            text = (self._root / "dvc.lock").read_text(encoding="utf-8")
            empty = dvc_files.StageLock(stage, {}, {})
            found = next((item for item in dvc_files.read_lock(text) if item.name == stage), empty)
            return self._named(found.inputs), self._named(found.outputs)
        tree = yaml.safe_load((self._root / "dvc.yaml").read_text(encoding="utf-8"))
        entries = tree["stages"][stage]
        inputs = dict.fromkeys(entries.get("deps", ()), "")
        outputs = map(_path, [*entries.get("outs", ()), *entries.get("metrics", ())])
        return self._named(inputs), self._named(dict.fromkeys(outputs, ""))

    def _named(self, hashes: Mapping[str, str]) -> list[dict[str, Any]]:
        found = []
        for path, md5 in sorted(hashes.items()):
            facets = {}
            if md5:
                facets["version"] = self._facet("version", {"datasetVersion": md5})
                own = {"_producer": self._producer, "_schemaURL": f"{self._producer}#hash"}
                facets["ragloop_hash"] = {**own, "algorithm": "md5", "value": md5}
            name = str(self._root / path)
            found.append({"namespace": "file", "name": name, "facets": facets})
        return found

    def _error(self, error: Exception) -> dict[str, Any]:
        message = str(without_credentials(str(error)))
        content = {"message": message, "programmingLanguage": "PYTHON"}
        return {"errorMessage": self._facet("errorMessage", content)}

    def _facet(self, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
        version, _, title = _FACETS[name].partition("/")
        schema = f"{_SPEC}/facets/{version}/{title}.json#/$defs/{title}"
        return {"_producer": self._producer, "_schemaURL": schema, **content}


@contextmanager
def observed(artifacts: Artifacts, params: Params) -> Iterator[Events]:
    """The events of a run, delivered where `tracking.openlineage` says."""
    events = Events(artifacts.root, params.tracking.openlineage, params.release.name)
    with events.run():
        yield events


def deliver(address: str, event: Mapping[str, Any]) -> None:
    """Appends an event to a file, or posts it to a server; OSError where that fails."""
    parts = urlsplit(address)
    text = json.dumps(event, ensure_ascii=False)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        return
    import httpx

    url = address if parts.path.strip("/") else address.rstrip("/") + _PATH
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(API_KEY):
        headers["Authorization"] = f"Bearer {key}"
    try:
        httpx.post(url, content=text, headers=headers, timeout=_TIMEOUT_SECONDS).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(str(error)) from None


def _path(entry: str | Mapping[str, Any]) -> str:
    """An output in dvc.yaml is a path, or a path with settings."""
    return entry if isinstance(entry, str) else next(iter(entry))


def _version() -> str:
    try:
        return metadata.version("ragloop")
    except metadata.PackageNotFoundError:
        return "0"


def _flow_run_id() -> str:
    """Prefect's own id of the run, so that both can be joined."""
    from prefect.runtime import flow_run

    return str(flow_run.id or uuid.uuid4())
