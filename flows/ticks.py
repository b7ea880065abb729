"""Whether a scheduled run still starts in time, and which ticks of the schedule were missed.

A run that could not start at its tick, because the machine slept or another run worked, is late.
Prefect would run every late one; here the newest may, or none (`schedule.catch_up`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rag.params import ScheduleParams

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

#: As many ticks as Prefect looks at in one call.
_MOST_TICKS = 1000
_NAMED = 3


def why_not(
    due: datetime,
    now: datetime,
    missed: Sequence[datetime],
    params: ScheduleParams,
    *,
    is_newest: bool,
) -> str | None:
    """Why the run of the tick `due` does not start at `now` any more; None where it does.

    `missed` are the ticks from `due` on until `now`; `is_newest` says that no newer one has a run
    of its own.
    """
    late = now - due
    if late <= timedelta(minutes=params.max_lateness_minutes):
        return None
    if is_newest and params.catch_up == "latest":
        return None
    rule = (
        "schedule.catch_up is none"
        if params.catch_up == "none"
        else "a newer tick is due and runs instead"
    )
    return (
        f"too late: due at {spoken(due, params)}, {_length(late)} ago "
        f"(schedule.max_lateness_minutes is {params.max_lateness_minutes:g}), and {rule}; "
        f"{missed_ticks(missed, params)}"
    )


def missed_ticks(missed: Sequence[datetime], params: ScheduleParams) -> str:
    """`5 ticks missed: 2026-11-25 03:00 CET, 2026-11-26 03:00 CET, ..., the last one`."""
    names = [spoken(tick, params) for tick in missed]
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], "...", names[-1]]
    at_least = "at least " if len(missed) >= _MOST_TICKS else ""
    count = f"{at_least}{len(missed)} tick{'' if len(missed) == 1 else 's'}"
    return f"{count} missed: {', '.join(names)}"


def ticks_between(
    after: datetime, until: datetime, params: ScheduleParams, cron: str
) -> list[datetime]:
    """The ticks of a cron line with `after` <= tick <= `until`, as Prefect schedules them."""
    from prefect.server.schemas.schedules import CronSchedule

    schedule: Any = CronSchedule(cron=cron, timezone=params.timezone)
    found = asyncio.run(schedule.get_dates(n=_MOST_TICKS, start=after, end=until))
    return [datetime.fromtimestamp(tick.timestamp(), UTC) for tick in found]


def too_late(params: ScheduleParams, cron: str | None) -> str | None:
    """`why_not` of the flow run that we are in; None where no schedule started it.

    `cron` is the line that its flow is served on, None where that is an interval.
    """
    run = scheduled_run()
    if run is None or run.expected_start_time is None:
        return None
    due, now = run.expected_start_time.astimezone(UTC), datetime.now(UTC)
    if now - due <= timedelta(minutes=params.max_lateness_minutes):
        return None
    missed = ticks_between(due, now, params, cron) if cron else [due]
    return why_not(due, now, missed, params, is_newest=not _has_newer(run, now))


def scheduled_run() -> FlowRun | None:
    """The flow run that we are in, if Prefect's scheduler made it and no person or trigger."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run if run is not None and run.auto_scheduled else None


def spoken(tick: datetime, params: ScheduleParams) -> str:
    """A tick in the schedule's own time zone."""
    return f"{tick.astimezone(ZoneInfo(params.timezone)):%Y-%m-%d %H:%M %Z}"


def _has_newer(run: FlowRun, now: datetime) -> bool:
    """Whether a newer tick that is due by now has a run, in whatever state."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterExpectedStartTime,
    )

    assert run.deployment_id is not None
    assert run.expected_start_time is not None
    due = FlowRunFilterExpectedStartTime(after_=run.expected_start_time, before_=now)
    filters = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
        expected_start_time=due,
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=filters)
    return any(
        other.auto_scheduled
        and other.expected_start_time is not None
        and other.expected_start_time > run.expected_start_time
        for other in found
    )


def _length(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"
