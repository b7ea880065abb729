"""Between runs: what died is closed within a minute, and no failure stays untold.

    python -m flows.sweep      # one sweep; `ragloop up` starts it where there is something to sweep

A run puts right what the last one left, but the next run may be a night away. So `ragloop up` looks
every `EVERY_SECONDS`, without heavy libraries: at who holds the project's lock, at Prefect's runs
that have no process any more, and at those that failed and that no notice tells of.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows import lock, prefect_facts, processes, reconcile, terminal
from flows.identity import Identity
from flows.up_log import UpLog
from rag.artifacts import Artifacts
from rag.errors import BusyError, RagError
from rag.monitoring import bounded_log
from rag.params import Params, load_params
from rag.release import store

#: What the lock's file calls a sweep: a scheduled run waits for it instead of giving up.
SWEEP = "ragloop (closing dead runs)"
EVERY_SECONDS = 15.0
#: A run that has just failed tells of it itself; services may need a while.
TELLING_SECONDS = 60.0
_REMEMBERED = timedelta(hours=24)
_LONGEST_SWEEP_SECONDS = 120.0
_BAD: Mapping[str, str] = {"FAILED": "failed", "CRASHED": "crashed"}


def main() -> int:
    """Closes what is dead in every store, and tells of what nobody was told."""
    from flows import settings

    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    sweep(artifacts, params)
    return 0


def sweep(artifacts: Artifacts, params: Params) -> None:
    """The registry is left to a run that is at work, which has put it right itself."""
    from uuid import UUID

    from prefect.client.orchestration import get_client

    from flows import notices, stores

    try:
        with lock.hold(artifacts.lock, SWEEP):
            stores.initialise(artifacts, params)
            reconcile.reconcile(artifacts, params)
    except BusyError:
        pass
    for run in reconcile.close_dead_runs(artifacts):
        terminal.say(f"  {run.name}: its process is gone, so it is Crashed")
    with get_client(sync_client=True) as client:
        for run_id in untold_runs(artifacts, params, os.environ["PREFECT_API_URL"]):
            run = client.read_flow_run(UUID(run_id))
            notices.untold(artifacts, params, run)
            terminal.say(f"  {run.name} ended badly, and nobody had been told: they are now")


@contextmanager
def regularly(artifacts: Artifacts, params: Params, log: UpLog) -> Iterator[None]:
    """Sweeps for as long as the block runs, where there is something to sweep; `log` has it all."""
    stop = threading.Event()
    api = os.environ["PREFECT_API_URL"]

    def watch() -> None:
        while not stop.wait(EVERY_SECONDS):
            if is_needed(artifacts, params, api):
                _start(artifacts.root, log, stop)

    thread = threading.Thread(target=watch, daemon=True, name="sweep")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def is_needed(artifacts: Artifacts, params: Params, api: str) -> bool:
    """Whether something is dead or untold; no while Prefect does not answer."""
    holder = lock.holder(artifacts.lock)
    if holder is not None and holder.is_known_dead:
        return True
    try:
        running = prefect_facts.running_runs(api, os.environ, also=("PENDING", "CANCELLING"))
        at_work = reconcile.runs_at_work() if running else set()
        return any(
            run["id"] not in at_work and may_be_dead(run, artifacts) for run in running
        ) or bool(untold_runs(artifacts, params, api))
    except (RagError, OSError):  # a server or the disk is away: the next look may see more
        return False


def may_be_dead(run: Mapping[str, Any], artifacts: Artifacts) -> bool:
    """Whether the process that a run names, as the API has it, is gone; or it has named none."""
    labels = run.get("labels") or {}
    who = Identity.from_tags(labels)
    if who is not None:
        return labels.get(store.PROJECT) == store.project_id(artifacts) and who.is_known_dead
    since = prefect_facts.time_of(run.get("state") or {}, "timestamp")
    return since is not None and datetime.now(UTC) - since > timedelta(seconds=TELLING_SECONDS)


def untold_runs(artifacts: Artifacts, params: Params, api: str) -> list[str]:
    """Ids of this project's runs that ended badly, some time ago, and that no notice names."""
    bad = prefect_facts.ended_badly(api, artifacts.root, os.environ, datetime.now(UTC), _REMEMBERED)
    return untold(bad, bounded_log.read(artifacts.notices), params.notify.on, datetime.now(UTC))


def untold(
    bad: Sequence[Mapping[str, Any]],
    told: Sequence[Mapping[str, Any]],
    events: Sequence[str],
    now: datetime,
) -> list[str]:
    """Of runs that ended badly, as the API has them, those that none of the notices names.

    `events` are what anybody wants to know.
    """
    named = {str(run) for row in told for run in row.get("runs", ())}
    found = []
    for run in bad:
        ended = prefect_facts.time_of(run, "end_time")
        is_over = ended is not None and now - ended > timedelta(seconds=TELLING_SECONDS)
        if is_over and _BAD[run["state_type"]] in events and str(run["id"]) not in named:
            found.append(str(run["id"]))
    return found


def _start(root: Path, log: UpLog, stop: threading.Event) -> None:
    """One sweep in a process of its own: what it imports would stay in ours."""

    def poll() -> None:
        if stop.is_set():
            raise InterruptedError("stopped")

    try:
        with processes.running([sys.executable, "-m", "flows.sweep"], root) as program:
            processes.follow(
                program,
                on_line=lambda line: log.add("sweep", line),
                poll=poll,
                timeout_seconds=_LONGEST_SWEEP_SECONDS,
            )
    except (TimeoutError, OSError) as error:
        log.add("sweep", f"not finished, the next look finds the same: {error}")


if __name__ == "__main__":
    sys.exit(main())
