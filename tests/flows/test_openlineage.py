"""OpenLineage events: what the specification requires, in a file, over HTTP, and when it fails."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from openlineage.client import event_v2
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.error_message_run import ErrorMessageRunFacet
from openlineage.client.generated.job_type_job import JobTypeJobFacet
from openlineage.client.generated.parent_run import ParentRunFacet

from flows import openlineage
from flows.openlineage import Events
from rag.errors import RagError

PIPELINE = """
stages:
  train:
    deps: [data/in.parquet]
    outs: [model]
    metrics: [{scores.json: {cache: false}}]
"""
LOCK = """
schema: '2.0'
stages:
  train:
    cmd: python -m rag train
    deps: [{path: data/in.parquet, hash: md5, md5: aa, size: 3}]
    outs: [{path: model, hash: md5, md5: bb.dir, size: 3}, {path: scores.json, md5: cc}]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "dvc.lock").write_text(LOCK)
    return tmp_path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check(event: dict[str, Any]) -> None:
    """The properties that OpenLineage.json 2-0-2 requires, with their formats."""
    assert set(event) >= {"eventTime", "producer", "schemaURL", "run", "job"}
    assert event["eventType"] in ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert event["schemaURL"] == as_its_client_sees_it(event).schemaURL
    uuid.UUID(event["run"]["runId"])
    assert event["job"]["namespace"]
    assert event["job"]["name"]
    facets = [*event["run"]["facets"].values(), *event["job"]["facets"].values()]
    for dataset in (*event["inputs"], *event["outputs"]):
        assert dataset["namespace"] == "file"
        assert dataset["name"].startswith("/")
        facets += dataset["facets"].values()
    for facet in facets:
        assert facet["_producer"] == event["producer"]
        assert ":" in facet["_schemaURL"]


def bare(facet: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facet.items() if not name.startswith("_")}


def as_its_client_sees_it(event: dict[str, Any]) -> event_v2.RunEvent:
    """The event in the classes of OpenLineage's own client, which refuse what is malformed."""
    known: dict[str, Any] = {"parent": ParentRunFacet, "errorMessage": ErrorMessageRunFacet}
    run = event["run"]
    facets = {name: known[name](**bare(facet)) for name, facet in run["facets"].items()}
    JobTypeJobFacet(**bare(event["job"]["facets"]["jobType"]))
    for item in event["outputs"]:
        if "version" in item["facets"]:
            DatasetVersionDatasetFacet(**bare(item["facets"]["version"]))
    return event_v2.RunEvent(
        eventType=event_v2.RunState[event["eventType"]],
        eventTime=event["eventTime"],
        run=event_v2.Run(runId=run["runId"], facets=facets),
        job=event_v2.Job(event["job"]["namespace"], event["job"]["name"]),
        inputs=[event_v2.InputDataset(d["namespace"], d["name"]) for d in event["inputs"]],
        outputs=[event_v2.OutputDataset(d["namespace"], d["name"]) for d in event["outputs"]],
        producer=event["producer"],
    )


def hashes(datasets: list[dict[str, Any]], root: Path) -> dict[str, str | None]:
    return {
        str(Path(item["name"]).relative_to(root)): item["facets"]
        .get("version", {})
        .get("datasetVersion")
        for item in datasets
    }


def test_a_run_and_its_stage_start_and_complete(root: Path) -> None:
    path = root / "events" / "a b.jsonl"
    events = Events(root, path.as_uri(), "ragloop")
    with events.run(), events.stage("train"):
        pass
    run_start, start, complete, run_complete = read(path)
    for event in (run_start, start, complete, run_complete):
        check(event)
    assert [item["eventType"] for item in (run_start, start)] == ["START", "START"]
    assert [item["eventType"] for item in (complete, run_complete)] == ["COMPLETE", "COMPLETE"]
    assert start["run"]["runId"] == complete["run"]["runId"] != run_start["run"]["runId"]
    assert run_complete["run"]["runId"] == run_start["run"]["runId"]
    parent = complete["run"]["facets"]["parent"]
    assert parent["run"]["runId"] == run_start["run"]["runId"]
    assert parent["job"] == {"namespace": "ragloop", "name": "retrain"}
    assert complete["job"]["name"] == "retrain.train"
    assert hashes(start["inputs"], root) == {"data/in.parquet": None}
    assert hashes(start["outputs"], root) == {"model": None, "scores.json": None}
    assert hashes(complete["inputs"], root) == {"data/in.parquet": "aa"}
    assert hashes(complete["outputs"], root) == {"model": "bb.dir", "scores.json": "cc"}
    own = complete["outputs"][0]["facets"]["ragloop_hash"]
    assert (own["algorithm"], own["value"]) == ("md5", "bb.dir")


def test_a_failure_and_a_stop_are_told_and_go_on_up(root: Path) -> None:
    path = root / "events.jsonl"
    events = Events(root, path.as_uri(), "ragloop")
    with pytest.raises(RagError), events.run(), events.stage("train"):
        raise RagError("no answer from https://me:secret@host/x")
    _, _, failed, run_failed = read(path)
    assert [failed["eventType"], run_failed["eventType"]] == ["FAIL", "FAIL"]
    message = failed["run"]["facets"]["errorMessage"]["message"]
    assert message == "no answer from https://host/x"
    path.unlink()
    with pytest.raises(KeyboardInterrupt), events.stage("train"):
        raise KeyboardInterrupt
    assert [event["eventType"] for event in read(path)] == ["START", "ABORT"]


def test_nothing_is_written_where_nobody_asks(root: Path) -> None:
    before = sorted(root.iterdir())
    events = Events(root, None, "ragloop")
    with events.run(), events.stage("train"):
        pass
    assert sorted(root.iterdir()) == before


def test_a_deaf_server_is_told_once_and_stops_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = Events(root, "http://me:secret@127.0.0.1:9", "ragloop")
    with events.run(), events.stage("train"):
        pass
    said = capsys.readouterr().err
    assert said.count("OpenLineage events cannot be delivered") == 1
    assert "secret" not in said


class _Server(BaseHTTPRequestHandler):
    received: list[tuple[str, str | None, dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers.get("Authorization")
        type(self).received.append((self.path, key, json.loads(body)))
        self.send_response(201)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    _Server.received = []
    with HTTPServer(("127.0.0.1", 0), _Server) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_server_gets_events_at_the_path_of_the_specification(
    root: Path, server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(openlineage.API_KEY, "key of the server")
    events = Events(root, f"http://127.0.0.1:{server.server_port}", "ragloop")
    with events.stage("train"):
        pass
    assert [path for path, _, _ in _Server.received] == ["/api/v1/lineage"] * 2
    assert {key for _, key, _ in _Server.received} == {"Bearer key of the server"}
    for _, _, event in _Server.received:
        check(event)
        assert "key of the server" not in json.dumps(event)
