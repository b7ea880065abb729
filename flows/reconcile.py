"""What a killed process left, put right at every start: in the registry, in MLflow, in Prefect.

While we hold the project's lock nobody else works on this project, so what looks unfinished is
dead: a switch is finished or taken back, a half-registered version is removed, a run is closed. In
Prefect only on a server of our own: one that the user named may run other projects.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flows import lock, server, terminal
from rag.artifacts import Artifacts
from rag.errors import BusyError
from rag.params import Params

#: A scheduled run that finds the lock taken is Running for some seconds before it says so.
STARTING_SECONDS = 60.0


def reconcile(artifacts: Artifacts, params: Params) -> None:
    """Leaves the registry whole, and says on the terminal what was put right.

    The caller holds the lock and has the stores ready.
    """
    from rag import tracking
    from rag.release import tidying

    tracking.configure(artifacts, params)
    for line in tidying.reconcile(artifacts, params):
        terminal.say(f"  [dim]{line}[/]")


def close_dead_runs(artifacts: Artifacts, *, older_than_seconds: float = STARTING_SECONDS) -> int:
    """Sets dead runs and their tasks to Crashed; says how many; none while another run works."""
    if not server.is_own():
        return 0
    try:
        with lock.hold(artifacts.lock, "ragloop (closing dead runs)"):
            # `watch` only looks, without this lock; it holds its own.
            looking = lock.holder(artifacts.watch_lock)
            spares = "watch " if looking and (looking.is_alive or not looking.is_here) else None
            count = _close(datetime.now(UTC) - timedelta(seconds=older_than_seconds), spares)
    except BusyError:
        return 0
    from flows import notices

    notices.found_dead(artifacts, count)
    return count


def _close(before: datetime, spares: str | None) -> int:
    """Closes runs that began before a time; none whose name begins with `spares`."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        FlowRunFilterState,
        FlowRunFilterStateType,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import FlowRun, State, StateType
    from prefect.runtime import flow_run
    from prefect.states import Crashed

    alive = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    crashed: State[None] = Crashed(message="The process ended without a word.")
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=alive)))

    def spared(name: str) -> bool:
        return spares is not None and name.startswith(spares)

    def began(run: FlowRun) -> datetime:
        return run.start_time or run.expected_start_time or run.created or datetime.now(UTC)

    with get_client(sync_client=True) as client:
        dead = [
            run
            for run in client.read_flow_runs(flow_run_filter=running)
            if str(run.id) != flow_run.id and began(run) < before and not spared(run.name)
        ]
        for run in dead:
            tasks = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
                task_run_filter=TaskRunFilter(
                    state=TaskRunFilterState(type=TaskRunFilterStateType(any_=alive))
                ),
            )
            for task in tasks:
                client.set_task_run_state(task.id, crashed, force=True)
            client.set_flow_run_state(run.id, crashed, force=True)
    return len(dead)
