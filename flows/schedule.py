"""Serves the flows as Prefect deployments, on the schedules of params.yaml.

    python -m flows.schedule [PORT]   # `ragloop up` keeps this running

With a port, `/health` there says whether it still looks for runs that are due.

`retrain` runs at schedule.cron, `refresh` and `prune` where they have a cron line, `watch` at
watch.cron; `rollback` and `tune` only when somebody starts them. docs/scheduling.md says what
becomes of a tick that was missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from flows import server, settings, terminal
from rag.artifacts import Artifacts
from rag.errors import InputError
from rag.params import Params, ScheduleParams, load_params

DEPLOYMENT = "scheduled"
#: Flow runs that may be there at once. One works, by the project's lock; others look, or wait.
_AT_ONCE = 4
_HEARTBEAT_SECONDS = 30.0


@dataclass(frozen=True)
class Served:
    """A flow by its name, the module and the name of its function, and its cron line if any."""

    flow: str
    module: str
    cron: str | None

    @property
    def function(self) -> Any:
        """The flow itself; Prefect is imported with it."""
        return getattr(import_module(self.module), self.flow)


def main() -> None:
    """Runs until it is stopped; a clean stop pauses the schedules, the next start resumes them."""
    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    if len(sys.argv) > 1:
        os.environ |= {
            "PREFECT_RUNNER_SERVER_ENABLE": "true",
            "PREFECT_RUNNER_SERVER_HOST": server.HOST,
            "PREFECT_RUNNER_SERVER_PORT": sys.argv[1],
        }
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner
    from prefect.types.entrypoint import EntrypointType

    class OrderlyRunner(Runner):
        """Ends on SIGTERM as on Ctrl-C: Prefect's own handler leaves before it has paused."""

        def handle_sigterm(self, *_: Any, **__: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    # The limits are the runner's and the lock's. One kept by the server would hold the slot of a
    # killed run for minutes, and knows nothing of other hosts and of the command line.
    runner = OrderlyRunner(
        name=f"ragloop {artifacts.root.name}", limit=_AT_ONCE, pause_on_shutdown=True
    )
    for served in deployments(params):
        deployment = served.function.to_deployment(
            name=DEPLOYMENT,
            schedule=schedule_of(served, params.schedule),
            description=f"{served.flow} of {artifacts.root}",
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
        identifier = runner.add_deployment(deployment)
        if served.flow == "retrain":
            catch_up(artifacts, params.schedule, str(identifier))
    with contextlib.suppress(KeyboardInterrupt), _heartbeat(_record(artifacts)):
        asyncio.run(runner.start())


def deployments(params: Params) -> list[Served]:
    """What is served; `watch` where this version has it, `tune` where optuna is installed."""
    when = params.schedule
    served = [
        Served("retrain", "flows.retrain", when.cron),
        Served("refresh", "flows.refresh", when.refresh_cron),
        Served("rollback", "flows.operations", None),
        Served("prune", "flows.operations", when.prune_cron),
    ]
    if importlib.util.find_spec("flows.watch"):
        served.append(Served("watch", "flows.watch", params.flat().get("watch.cron")))
    if importlib.util.find_spec("optuna"):
        served.append(Served("tune", "flows.operations", None))
    return served


def schedule_of(served: Served, params: ScheduleParams) -> Any:
    """Prefect's schedule of a flow: cron in its time zone; `retrain` also at an interval.

    None where the flow is only started by hand. InputError for a cron line that Prefect cannot
    read.
    """
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.schedules import Cron, Interval

    if served.flow == "retrain" and params.interval_seconds:
        return Interval(timedelta(seconds=params.interval_seconds))
    if served.cron is None:
        return None
    try:
        CronSchedule(cron=served.cron, timezone=params.timezone)
    except ValueError:
        raise InputError(f"cron of {served.flow}: Prefect cannot read {served.cron!r}") from None
    return Cron(served.cron, timezone=params.timezone)


def catch_up(artifacts: Artifacts, params: ScheduleParams, deployment: str) -> None:
    """Tells of the ticks that passed while nothing was served, and orders one run in their place.

    Prefect forgets the runs of a schedule that is served anew. With `schedule.catch_up: none`, and
    at an interval, they are only told of.
    """
    from flows import ticks

    try:
        record = json.loads(_record(artifacts).read_text(encoding="utf-8"))
        last = datetime.fromisoformat(record["served_until"])
    except (FileNotFoundError, ValueError, KeyError):
        return
    if params.interval_seconds:
        return
    now = datetime.now(UTC)
    missed = ticks.ticks_between(last, now, params, params.cron)
    if not missed:
        return
    told = ticks.missed_ticks(missed, params)
    if params.catch_up == "none":
        terminal.say(f"  retrain: {told} (schedule.catch_up is none)")
        return
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(
            deployment,  # type: ignore[arg-type] # it takes the text of an id too
            name=f"catch-up {missed[-1]:%Y-%m-%d %H:%M:%S}",
            tags=["catch-up"],
            idempotency_key=f"catch-up-{missed[-1].isoformat()}",
        )
    terminal.say(f"  retrain: {told}; one run in their place (schedule.catch_up is latest)")


@contextmanager
def _heartbeat(path: Path) -> Iterator[None]:
    """Writes down again and again until when schedules were served."""
    stop = threading.Event()

    def beat() -> None:
        while True:
            # Of a full disk the next beat may find more: ticks that ran would be called missed.
            with contextlib.suppress(OSError):
                temporary = path.with_suffix(".tmp")
                temporary.write_text(json.dumps({"served_until": datetime.now(UTC).isoformat()}))
                temporary.replace(path)
            if stop.wait(_HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True, name="schedule heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _record(artifacts: Artifacts) -> Path:
    return artifacts.state / "schedule.json"


if __name__ == "__main__":
    main()
