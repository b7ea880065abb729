"""`ragloop watch`: new data starts a run that says why it happened; nothing new starts none.

Under `ragloop up` it is the deployment that is started, and a run that is killed is told of.
"""

from __future__ import annotations

import json
import os
import time

import psutil
import pytest

from flows import manual, server
from rag.artifacts import Artifacts
from rag.monitoring import bounded_log
from tests.integration.conftest import Finished, Project
from tests.integration.serving import family, up, wait_until

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


def told(project: Project) -> list[str]:
    """The events of all notices so far."""
    return [row["event"] for row in bounded_log.read(Artifacts(project.root).notices)]


def process_of(run: str, up_pid: int) -> list[psutil.Process]:
    """What Prefect's runner has started for a flow run."""
    named = [
        (process, process.environ().get("PREFECT__FLOW_RUN_ID", "")) for process in family(up_pid)
    ]
    return [process for process, name in named if name.replace("-", "") == run.replace("-", "")]


def test_a_trigger_starts_what_is_served_and_a_killed_run_is_told_of(
    project: Project, first_run: Finished
) -> None:
    """Nothing else would start a run here for days; the run is killed when it has begun."""
    assert first_run.code == 0, first_run.err
    document = project.root / "incoming" / "documents" / "newer.md"
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text("The harbour office closes at four in the afternoon.")
    os.utime(document, (time.time() - 120,) * 2)
    ports = [f"schedule.{name}_port={server.free_port()}" for name in ("prefect", "mlflow")]
    rare = ["schedule.interval_seconds=1000000", "watch.incoming=incoming"]
    rare += ["watch.cooldown_hours=0.0"]  # after the run that the test above has started
    manual.write_changes(Artifacts(project.root), [*rare, *ports])
    retrainings = (
        "select id, state_type, parameters, tags from flow_run where name like 'retrain%' "
        "and deployment_id is not null and auto_scheduled = 0 and start_time is not null "
        "order by start_time desc limit 1"
    )
    before, seen = told(project), project.prefect(retrainings)
    with up(project) as served:
        address = json.loads(server.up_record(Artifacts(project.root)).read_text())["prefect"]
        ordered = project.python(
            *("-m", "prefect", "deployment", "run", "watch/scheduled"),
            variables={"PREFECT_API_URL": f"{address}/api"},
        )
        assert ordered.returncode == 0, ordered.stderr
        wait_until(lambda: project.prefect(retrainings) != seen, "the trigger starts no run")
        ((run, _, parameters, tags),) = project.prefect(retrainings)
        assert json.loads(parameters)["reason"]["triggers"] == ["new_data"]
        assert "trigger:new_data" in json.loads(tags)
        looks = "select state_name from flow_run where name like 'watch%' order by created desc"
        wait_until(lambda: project.prefect(looks)[0] == ("Started",), "the look does not end")

        (process,) = process_of(run, served.pid)
        process.kill()
        query = f"select state_type from flow_run where id = '{run}'"
        wait_until(lambda: project.prefect(query) == [("CRASHED",)], "the run is not closed")
        wait_until(lambda: told(project)[len(before) :] == ["crashed"], "nobody is told")
    assert project.connections_refused() == []
