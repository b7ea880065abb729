"""One run's turn on the project: in time, alone, and in a place of its own.

`retrain`, `refresh`, `rollback` and `prune` begin alike: a scheduled run that is too late ends at
once, as one does that finds another at work; a run that a person or a trigger started waits for
that one. What a killed process left is put right before the work begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows import (
    lock,
    reconcile,
    steps,
    stores,
    sweep,
    terminal,
    ticks,
    verdict,
    workspace,
)
from flows.verdict import Verdict
from rag.artifacts import Artifacts
from rag.errors import BusyError
from rag.params import Params

#: A sweep takes seconds, and is no reason to leave out a night.
_SWEEP_SECONDS = 60.0


def take(
    what: str,
    project: Artifacts,
    params: Params,
    work: Callable[[Artifacts], Verdict],
    *,
    cron: str | None,
    apart: bool = False,
) -> Verdict:
    """What `work` reaches with the files that it is given; SKIPPED where it has no turn.

    `cron` is what its flow is served on, None for an interval. With `apart` the work is never done
    in the checkout, whatever `schedule.workspace` says. BusyError where a run that may wait has
    waited for `schedule.wait_minutes`.
    """
    stores.initialise(project, params)
    late = ticks.too_late(params.schedule, cron)
    if late:
        return _skipped(late)
    # Before the wait: whoever works meanwhile must not take a run that waits for a dead one.
    reconcile.label_flow_run(project)
    try:
        with hold(project, params, what):
            reconcile.close_dead_runs(project)
            reconcile.reconcile(project, params)
            why = workspace.why_in_place(project, params, is_scheduled=steps.is_scheduled())
            if why is not None and not apart:
                return work(project)
            with workspace.worktree(project, params) as artifacts:
                return work(artifacts)
    except BusyError as busy:
        if ticks.scheduled_run() is None:
            raise
        return _skipped(str(busy))


@contextmanager
def hold(project: Artifacts, params: Params, what: str) -> Iterator[None]:
    """The project's lock: at once for a scheduled run, in its turn for one that was asked for."""
    is_asked_for = steps.is_scheduled() and ticks.scheduled_run() is None
    seconds = 60.0 * params.schedule.wait_minutes if is_asked_for else 0.0
    holder = lock.holder(project.lock)
    if holder is not None and holder.what == sweep.SWEEP:
        seconds = max(seconds, _SWEEP_SECONDS)
    with lock.hold(project.lock, what, wait_seconds=seconds, on_wait=terminal.say):
        yield


def _skipped(reason: str) -> Verdict:
    return Verdict(verdict.SKIPPED, (reason,), key="")
