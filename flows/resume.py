"""A retraining that was killed is taken up again: what it had finished is found unchanged.

A run of the schedule that dies would otherwise wait for the next night. Its successor is an
ordinary flow run of the same deployment: DVC skips every stage that had ended, and training goes on
from its last checkpoint. A run that kills its machine each time is not taken up for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_TAG = "resumed:"


def resume(dead: Sequence[FlowRun], *, limit: int) -> list[str]:
    """Orders a run in place of the one that is to be taken up; returns lines for people."""
    run = newest_scheduled(dead)
    if run is None:
        return []
    before = times_resumed(run.tags)
    if before >= limit:
        return [
            f"{run.name} was interrupted; it has been taken up {before} times (up.max_resumes) "
            "and now waits for the schedule"
        ]
    _order(run, before + 1)
    return [f"{run.name} was interrupted: it is taken up again, finished stages stay"]


def newest_scheduled(dead: Sequence[FlowRun]) -> FlowRun | None:
    """The newest dead run of a deployment.

    One is enough: whatever the others were made for, it sees the project as it is now. A
    retraining goes before any other run, which costs less to do again or waits for somebody. Runs
    that were started by hand are left to who started them.
    """
    deployed = [run for run in dead if run.deployment_id is not None]

    def rank(run: FlowRun) -> tuple[bool, str]:
        return run.name.startswith("retrain "), str(run.expected_start_time or run.created)

    return max(deployed, key=rank, default=None)


def times_resumed(tags: Sequence[str]) -> int:
    """How often the run with these tags has been taken up before."""
    return max((_count(tag) for tag in tags), default=0)


def _count(tag: str) -> int:
    number = tag.removeprefix(_TAG)
    return int(number) if tag.startswith(_TAG) and number.isdigit() else 0


def _order(run: FlowRun, count: int) -> None:
    from prefect.client.orchestration import get_client

    assert run.deployment_id is not None
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(
            run.deployment_id,
            parameters=run.parameters,
            tags=[f"{_TAG}{count}"],
            idempotency_key=f"resume-{run.id}",
        )
