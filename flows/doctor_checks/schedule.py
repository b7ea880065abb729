"""Whether runs start by themselves: somebody serves, the next run is planned, the last one came."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from flows import lock
from flows.doctor_checks.finding import Finding, Site, WaitsFor, fail, ok, warn, worst
from flows.prefect_facts import PrefectFacts, read_prefect, running_runs, serving, time_of
from rag.errors import RagError

#: A run that should have started this long ago and has not is late.
LATE = timedelta(minutes=3)
#: How long a server takes to plan the runs of a new deployment.
PLANNING = timedelta(minutes=2)
#: A run may say that it runs for this long before it has the lock, or after it gave it back.
STARTING = timedelta(minutes=1)
_UP = "ragloop up"


def look_at_schedule(site: Site) -> Finding:
    """Somebody serves the schedule, the next run is planned and the last tick fired."""
    found = serving(site.artifacts, site.environment)
    if found.state == "never":
        return ok("nothing serves; runs are started by hand (ragloop up serves the schedule)")
    if found.state == "stopped":
        return warn("nothing serves: `ragloop up` was stopped, no run starts by itself", _UP)
    if found.state == "killed":
        who = found.holder.spoken() if found.holder else "ragloop up"
        return fail(f"nothing serves: {who} was killed, no run starts by itself", _UP)
    if found.api is None:
        who = found.holder.spoken() if found.holder else "?"
        return ok(f"served by {who}")
    try:
        facts = read_prefect(
            found.api,
            site.artifacts.root.resolve(),
            site.environment,
            site.now,
            is_own=found.state == "up",
        )
    except RagError as error:
        is_own = found.state == "up"
        remedy = f"stop `{_UP}`, then: {_UP}" if is_own else "check PREFECT_API_URL and its server"
        return fail(str(error), remedy)
    return judge(facts, site.now)


def judge(facts: PrefectFacts, now: datetime) -> Finding:
    """What Prefect's answers say of the schedule at a moment."""
    if not facts.deployments:
        return fail("Prefect answers, but the schedule of this project is not there", _UP)
    problems = []
    for item in facts.deployments:
        name = item["name"]
        if item.get("paused") or not any(rule.get("active") for rule in item.get("schedules", ())):
            resume = f"prefect deployment schedule resume --all  # or start anew: {_UP}"
            problems.append(warn(f"the schedule {name} is paused", resume))
    coming = [when for run in facts.coming if (when := time_of(run, "expected_start_time"))]
    late = [when for when in coming if when < now - LATE]
    planned = [when for when in coming if when >= now - LATE]
    works = any(run.get("state_type") in ("RUNNING", "PENDING") for run in facts.past)
    if late and not works:
        problems.append(
            fail(f"the run of {_spoken(late[0])} has not started ({len(late)} are late)", _UP)
        )
    is_new = any(
        (made := time_of(item, "updated")) is not None and now - made < PLANNING
        for item in facts.deployments
    )
    if not planned and not problems and not is_new:
        problems.append(
            fail(
                "the schedule is on, but no run is planned: Prefect's scheduler does not work",
                "ragloop doctor --only versions  # sqlalchemy 2.1 does this",
            )
        )
    last = next((run for run in facts.past if run.get("state_type") not in _WAITING), None)
    if last is not None and last.get("state_type") in ("FAILED", "CRASHED"):
        when = time_of(last, "expected_start_time")
        remedy = "ragloop run  # shows why; logs are in .ragloop/logs"
        problems.append(
            warn(f"the last run, of {_spoken(when)}, ended as {last['state_name']}", remedy)
        )
    following = f"next run {_spoken(planned[0])}" if planned else "the first run is being planned"
    before = f", last tick {_spoken_run(last)}" if last else ", no tick yet"
    return worst(problems, following + before)


def look_at_runs(site: Site) -> Finding:
    """No run is called running that no process works on."""
    holder = lock.holder(site.artifacts.lock)
    if holder is not None and (not holder.is_here or holder.is_alive):
        return ok(f"{holder.spoken()} is at work")
    problems = []
    try:
        dead = [
            run
            for run in site.store.runs
            if run.status == "RUNNING" and site.now.timestamp() - run.started > STARTING.seconds
        ]
    except WaitsFor:
        dead = []
    close = "ragloop run  # every run first closes what is dead"
    problems += [
        warn(f"MLflow's run {run.run_id} is called running, and nothing works on it", close)
        for run in dead
    ]
    found = serving(site.artifacts, site.environment)
    if found.state == "up" and found.api is not None:
        running: list[Mapping[str, Any]] = []
        with contextlib.suppress(RagError):  # the check of the schedule says so
            running = running_runs(found.api, site.environment)
        for item in running:
            began = time_of(item, "start_time")
            if began is not None and site.now - began > STARTING:
                problems.append(
                    warn(f"Prefect's run {item['name']} is called running, nothing works", close)
                )
    return worst(problems, "none is called running that is dead")


_WAITING = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED")


def _spoken(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else "an unknown time"


def _spoken_run(run: Mapping[str, Any]) -> str:
    return f"{_spoken(time_of(run, 'expected_start_time'))} {run.get('state_name', '')}".rstrip()
