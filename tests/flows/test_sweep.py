"""What a sweep finds: runs whose process is gone, and failures that nobody was told of."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows import lock, sweep
from flows.identity import Identity
from rag.artifacts import Artifacts
from rag.params import Params
from rag.release import store

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NOWHERE = "http://127.0.0.1:9/api"


def ended(name: str, *, seconds_ago: float, state: str = "CRASHED") -> dict[str, Any]:
    time = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return {"id": name, "state_type": state, "end_time": time}


def test_who_failed_and_is_in_no_notice_is_told_of() -> None:
    bad = [
        ended("told", seconds_ago=300),
        ended("untold", seconds_ago=300),
        ended("failed untold", seconds_ago=300, state="FAILED"),
        ended("just now", seconds_ago=5),
    ]
    told = [{"event": "crashed", "runs": ["told"]}, {"event": "promoted"}]
    events = ["crashed", "failed"]
    assert sweep.untold(bad, told, events, NOW) == ["untold", "failed untold"]
    assert sweep.untold(bad, told, ["failed"], NOW) == ["failed untold"], "nobody wants to know"


def running(who: Identity | None, project: str, *, seconds: float) -> dict[str, Any]:
    labels = {store.PROJECT: project, **who.as_tags()} if who else {}
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    return {"id": "1", "labels": labels, "state": {"timestamp": since.isoformat()}}


def test_a_run_is_dead_with_its_process_or_when_it_names_none_for_long(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.state.mkdir()
    mine = store.project_id(artifacts)
    alive = Identity.of_this_process()
    dead = replace(alive, process_started=alive.process_started - 100)
    assert not sweep.may_be_dead(running(alive, mine, seconds=3600), artifacts)
    assert sweep.may_be_dead(running(dead, mine, seconds=1), artifacts)
    assert not sweep.may_be_dead(running(dead, "another", seconds=3600), artifacts)
    assert sweep.may_be_dead(running(None, mine, seconds=90), artifacts)
    assert not sweep.may_be_dead(running(None, mine, seconds=5), artifacts)


def test_a_dead_holder_of_the_lock_calls_for_a_sweep(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    assert not sweep.is_needed(artifacts, Params(), NOWHERE), "Prefect is away: look again later"
    with lock.hold(artifacts.lock, "retrain"):
        assert not sweep.is_needed(artifacts, Params(), NOWHERE), "it is at work"
        found = lock.holder(artifacts.lock)
    assert found is not None
    died = replace(found, process_started=found.process_started - 100)
    artifacts.lock.write_text(json.dumps(asdict(died)))
    assert sweep.is_needed(artifacts, Params(), NOWHERE)
