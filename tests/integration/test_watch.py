"""`ragloop watch`: new data starts a run that says why it happened; nothing new starts none."""

from __future__ import annotations

import json
import os
import time

import pytest

from flows import manual
from rag.artifacts import Artifacts
from rag.monitoring import bounded_log
from tests.integration.conftest import Finished, Project

pytestmark = pytest.mark.integration


def status_of(found: Finished) -> dict[str, str]:
    assert found.code == 0, found.err
    return {row["name"]: row["status"] for row in json.loads(found.out)["triggers"]}


def test_new_data_starts_a_run_and_the_run_says_so(project: Project, first_run: Finished) -> None:
    assert first_run.code == 0, first_run.err
    artifacts = Artifacts(project.root)
    document = project.root / "incoming" / "documents" / "new.md"
    document.parent.mkdir(parents=True)
    document.write_text("The harbour office opens at nine in the morning.")
    os.utime(document, (time.time() - 120,) * 2)
    manual.write_changes(artifacts, ["watch.incoming=incoming"])

    looked = project.ragloop("watch", "--dry-run", "--json")
    assert status_of(looked)["new_data"] == "fires"
    assert not artifacts.watch.exists()

    watched = project.ragloop("watch", "--json")
    assert status_of(watched)["new_data"] == "fires"
    started = json.loads(watched.out)["started"]
    assert started["by"] == "this process"
    assert started["reason"]["triggers"] == ["new_data"]
    assert (artifacts.raw / "documents" / "new.md").is_file()

    run_id = started["verdict"]["run_id"]
    tags = dict(project.mlflow(f"select key, value from tags where run_uuid = '{run_id}'"))
    assert tags["ragloop.trigger"] == "new_data"
    assert "incoming has not been taken in yet (1 files)" in tags["ragloop.trigger_because"]
    [(flow_tags,)] = project.prefect(
        "select tags from flow_run where name like 'retrain %' order by created desc limit 1"
    )
    assert "trigger:new_data" in json.loads(flow_tags)
    [(payload,)] = project.prefect(
        "select payload from events where event = 'ragloop.trigger.new_data'"
    )
    assert json.loads(payload)["files"] == 1
    told = [row["event"] for row in bounded_log.read(artifacts.notices)]
    assert told[-1] in ("promoted", "rejected", "inconclusive", "pending")

    again = project.ragloop("watch", "--json")
    assert status_of(again)["new_data"] == "quiet"
    assert json.loads(again.out)["started"] is None
