"""Serves the flow `retrain` on the schedule of params.yaml; `ragloop up` keeps this running.

python -m flows.schedule [PORT]

With a port, `/health` there says whether it still looks for runs that are due.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from flows import server, settings
from rag.artifacts import Artifacts
from rag.params import ScheduleParams, load_params

DEPLOYMENT = "scheduled"


def main() -> None:
    """Runs until it is stopped; a clean stop pauses the schedule, the next start resumes it."""
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

    from flows.retrain import retrain

    class OrderlyRunner(Runner):
        """Ends on SIGTERM as on Ctrl-C: Prefect's own handler leaves before it has paused."""

        def handle_sigterm(self, *_: Any, **__: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    deployment = retrain.to_deployment(
        name=DEPLOYMENT,
        schedule=schedule(params.schedule),
        description=f"Retraining of {artifacts.root}",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
    # The limit is the runner's own. One kept by the server would hold the slot of a killed run for
    # minutes; across hosts and the command line there is the project's lock.
    runner = OrderlyRunner(name=f"ragloop {artifacts.root.name}", limit=1, pause_on_shutdown=True)
    runner.add_deployment(deployment)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(runner.start())


def schedule(params: ScheduleParams) -> Any:
    """Prefect's schedule: the interval where there is one, else cron in its time zone."""
    from prefect.schedules import Cron, Interval

    if params.interval_seconds:
        return Interval(timedelta(seconds=params.interval_seconds))
    return Cron(params.cron, timezone=params.timezone)


if __name__ == "__main__":
    main()
