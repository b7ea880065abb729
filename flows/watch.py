"""The flow `watch`: looks at the triggers, and where one fires starts `retrain` with the reason.

    ragloop watch          # one look, now
    ragloop up             # at watch.cron of params.yaml

look -> events, notices -> start (the served deployment of `retrain`, or here) -> remember
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from prefect import flow, tags
from prefect.events import emit_event
from prefect.states import Completed

from flows import lock, manual, notices, reasons, reconcile, server, settings, steps, stores
from flows.look import Look, Memory, Watched, look
from flows.schedule import DEPLOYMENT
from rag.artifacts import Artifacts
from rag.errors import BusyError, RagError
from rag.monitoring.triggers import DRIFT, Trigger
from rag.params import Params, load_params

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

EVENT_PREFIX = "ragloop.trigger."
_RETRAIN = f"retrain/{DEPLOYMENT}"
_MOST_TOLD = 100


@flow(name="watch", flow_run_name=steps.run_name)
def watch() -> State[Watched]:
    """One look at the project in the working directory."""
    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    stores.initialise(artifacts, params)
    try:
        with lock.hold(artifacts.watch_lock, "ragloop watch"):
            reconcile.label_flow_run(artifacts)
            found = _watch(artifacts, params, datetime.now(UTC))
    except BusyError as busy:
        if not steps.is_scheduled():
            raise
        return Completed(name="Skipped", message=str(busy), data=Watched(Look(())))
    names = [trigger.name for trigger in found.look.firing]
    if found.look.problem:
        raise RagError(found.look.problem)
    return Completed(
        name="Started" if found.started else "Quiet",
        message=f"fires: {', '.join(names)}" if names else "no trigger fires",
        data=found,
    )


def _watch(artifacts: Artifacts, params: Params, now: datetime) -> Watched:
    found = look(artifacts, params, now)
    memory = _tell_missed(artifacts, params, found.memory, now)
    if found.problem and found.problem != memory.failed_told:
        notices.cannot_look(artifacts, params, found.problem)
    memory = replace(memory, failed_told=found.problem)
    memory.write(artifacts)
    firing = found.firing
    if not firing:
        return Watched(replace(found, memory=memory))
    for trigger in firing:
        announce(artifacts, trigger)
    if drift := [trigger for trigger in firing if trigger.name in DRIFT]:
        notices.drifted(artifacts, params, drift)
    started = _start(artifacts, params, memory.after_start(artifacts, firing, now), firing)
    return Watched(replace(found, memory=memory), started)


def announce(artifacts: Artifacts, trigger: Trigger) -> None:
    """The trigger as an event in Prefect, with its evidence."""
    emit_event(
        event=f"{EVENT_PREFIX}{trigger.name}",
        resource={
            "prefect.resource.id": f"ragloop.project.{artifacts.root.name}",
            "prefect.resource.name": artifacts.root.name,
        },
        payload={"summary": trigger.summary, **trigger.evidence},
    )


def _start(
    artifacts: Artifacts, params: Params, after: Memory, firing: Sequence[Trigger]
) -> dict[str, Any]:
    """Starts the run and then remembers that: by the deployment where it is served, or here."""
    reason = reasons.reason_of(firing)
    if is_served(artifacts):
        from prefect.deployments import run_deployment

        run: Any = run_deployment(
            _RETRAIN,
            parameters={"reason": reason},
            tags=reasons.prefect_tags(reason),
            timeout=0,
            as_subflow=False,
        )
        after.write(artifacts)
        return {"by": "deployment", "run": run.name, "reason": reason}
    from flows.retrain import retrain

    manual.check_models(artifacts, params)
    after.write(artifacts)
    with tags(*reasons.prefect_tags(reason)):
        state: Any = retrain(reason=reason, return_state=True)
    reached = state.result()
    return {"by": "this process", "reason": reason, "verdict": reached.to_json()}


def is_served(artifacts: Artifacts) -> bool:
    """Whether somebody is there to run the deployment of `retrain`.

    For a minute Prefect takes a deployment for served whose `ragloop up` was killed; on a server of
    our own nobody else serves one.
    """
    if server.is_own() and not server.up_addresses(artifacts):
        return False
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import DeploymentStatus
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(_RETRAIN)
        except ObjectNotFound:
            return False
    return found.status == DeploymentStatus.READY and not found.paused


def _tell_missed(artifacts: Artifacts, params: Params, memory: Memory, now: datetime) -> Memory:
    """Scheduled runs that are late for longer than `notify.late_minutes`, each told once."""
    before = now - timedelta(minutes=params.notify.late_minutes)
    late = {run: due for run, due in _late_runs(before).items() if run not in memory.late_told}
    if not late:
        return memory
    notices.schedule_missed(artifacts, params, sorted(late.values()))
    return replace(memory, late_told=(*memory.late_told, *late)[-_MOST_TOLD:])


def _late_runs(before: datetime) -> dict[str, datetime]:
    """Runs of `retrain` that should have started before a time, by id, with their times."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateName,
    )

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["retrain"])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"])),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=before),
            ),
        )
    return {str(run.id): run.expected_start_time for run in runs if run.expected_start_time}
