"""What a killed process left, put right at every start: in the registry, in MLflow, in Prefect.

A run says which process works on it: pid, start time and host, as labels in Prefect and as tags in
MLflow. Where that process is known to be gone, the run is dead. While we hold the project's lock
nobody else works on this project, so a switch is finished or taken back, a half-registered version
is removed, and what dead guards left is ended. A run in Prefect that does not say who works on it
is judged by its age and by the processes of this host, and only on a server of our own: one that
the user named may run other projects. `flows/sweep.py` does all this between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flows import orphans, server, terminal
from flows.identity import Identity
from rag.artifacts import Artifacts
from rag.params import Params
from rag.release import store

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

#: A scheduled run that finds the lock taken is Running for some seconds before it says so.
STARTING_SECONDS = 60.0
#: In the environment of a process that Prefect's runner starts: the run that it is for.
_FLOW_RUN = "PREFECT__FLOW_RUN_ID"


def reconcile(artifacts: Artifacts, params: Params) -> None:
    """Leaves the registry whole, and says on the terminal what was put right.

    The caller holds the lock and has the stores ready.
    """
    from rag import tracking
    from rag.release import tidying

    orphaned = orphans.end_orphans(artifacts)
    tracking.configure(artifacts, params)
    failed = fail_dead_runs(artifacts, params)
    lines = [f"ended {orphaned} processes that a killed run had left"] if orphaned else []
    lines += [f"MLflow run {name}: its process is gone, so it is FAILED" for name in failed]
    for line in [*lines, *tidying.reconcile(artifacts, params)]:
        terminal.say(f"  [dim]{line}[/]")


def identity_tags(artifacts: Artifacts) -> dict[str, str]:
    """Says on a run whose it is and which process, this one, works on it."""
    return {store.PROJECT: store.project_id(artifacts), **Identity.of_this_process().as_tags()}


def label_flow_run(artifacts: Artifacts) -> None:
    """Writes these tags on the flow run that this process executes."""
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    with get_client(sync_client=True) as client:
        labels: dict[str, Any] = dict(identity_tags(artifacts))
        client.update_flow_run_labels(UUID(flow_run.id), labels)


def fail_dead_runs(artifacts: Artifacts, params: Params) -> list[str]:
    """Sets MLflow runs of this project whose process is gone to FAILED; returns their names."""
    from mlflow import MlflowClient

    client = MlflowClient()
    mine = f"tags.`{store.PROJECT}` = '{store.project_id(artifacts)}'"
    running = client.search_runs(
        [store.experiment_id(client, artifacts, params)],
        f"attributes.status = 'RUNNING' and {mine}",
    )
    dead = [run.info for run in running if _is_dead(run.data.tags)]
    for info in dead:
        client.set_terminated(info.run_id, "FAILED")
    return [info.run_name for info in dead]


def close_dead_runs(
    artifacts: Artifacts, *, older_than_seconds: float = STARTING_SECONDS
) -> list[FlowRun]:
    """Sets dead runs and their tasks to Crashed, tells of them and returns them.

    `older_than_seconds` is for runs that do not say which process works on them. No lock is held:
    another run may work for hours, and what is dead stays dead.
    """
    from flows import notices

    before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
    dead = _close(store.project_id(artifacts), before)
    notices.found_dead(artifacts, dead)
    return dead


def crashed_runs(artifacts: Artifacts, since: datetime) -> list[FlowRun]:
    """Runs of this project that ended as Crashed since then: with their process told to stop."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterEndTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    crashed = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])),
        end_time=FlowRunFilterEndTime(after_=since),
    )
    project = store.project_id(artifacts)
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=crashed)
    return [run for run in found if run.labels.get(store.PROJECT) == project]


def _is_dead(tags: Mapping[str, Any]) -> bool:
    who = Identity.from_tags(tags)
    return who is not None and who.is_known_dead


def _close(project: str, before: datetime) -> list[FlowRun]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.runtime import flow_run

    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_alive())))
    with get_client(sync_client=True) as client:
        dead = [
            run
            for run in client.read_flow_runs(flow_run_filter=running)
            if str(run.id) != flow_run.id and has_died(run, project, before)
        ]
        for run in dead:
            _crash(client, run)
    return dead


def has_died(run: FlowRun, project: str, before: datetime) -> bool:
    """Whether a run is dead: its process is gone, or it names none.

    Then it has been in its state since `before`, and no process was started for it.
    """
    if Identity.from_tags(run.labels):
        return run.labels.get(store.PROJECT) == project and _is_dead(run.labels)
    # Not when it was due: a late run has been Pending for seconds only.
    since = run.state.timestamp if run.state else run.created or datetime.now(UTC)
    return server.is_own() and since < before and str(run.id) not in runs_at_work()


def runs_at_work() -> set[str]:
    """Flow runs that a process of this host was started for, as Prefect's runner does it."""
    import psutil

    found = set()
    for process in psutil.process_iter():
        try:
            run = process.environ().get(_FLOW_RUN)
            if run and process.status() != psutil.STATUS_ZOMBIE:
                found.add(run)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _crash(client: SyncPrefectClient, run: FlowRun) -> None:
    """The tasks first, so that none stays Running below a run that has ended."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import State
    from prefect.states import Crashed

    crashed: State[None] = Crashed(message="The process ended without a word.")
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_alive()))
        ),
    )
    for task in tasks:
        client.set_task_run_state(task.id, crashed, force=True)
    client.set_flow_run_state(run.id, crashed, force=True)


def _alive() -> list[Any]:
    from prefect.client.schemas.objects import StateType

    return [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
