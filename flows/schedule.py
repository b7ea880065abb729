"""Serves the flow `retrain` on the schedule of params.yaml; `ragloop up` keeps this running.

python -m flows.schedule
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flows import settings
from rag.artifacts import Artifacts
from rag.params import ScheduleParams, load_params

DEPLOYMENT = "scheduled"


def main() -> None:
    """Runs until it is stopped; a clean stop pauses the schedule, the next start resumes it."""
    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    from prefect import serve
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    from flows.retrain import retrain

    deployment = retrain.to_deployment(
        name=DEPLOYMENT,
        schedule=schedule(params.schedule),
        description=f"Retraining of {artifacts.root}",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
    # The limit is the runner's own. One kept by the server would hold the slot of a killed run for
    # minutes; across hosts and the command line there is the project's lock.
    serve(deployment, limit=1, print_starting_message=False)


def schedule(params: ScheduleParams) -> Any:
    """Prefect's schedule: the interval where there is one, else cron in its time zone."""
    from prefect.schedules import Cron, Interval

    if params.interval_seconds:
        return Interval(timedelta(seconds=params.interval_seconds))
    return Cron(params.cron, timezone=params.timezone)


if __name__ == "__main__":
    main()
