"""The deployment of `retrain` for workers of a Prefect work pool: what a team runs, not `up`.

    python -m flows.work_pool POOL

Makes the pool, of type process, where there is none; a pool that is there stays as it is, be it of
containers or of Kubernetes. The schedule is that of params.yaml: run it again after a change.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flows import settings
from flows.schedule import DEPLOYMENT, deployments, schedule_of
from rag.artifacts import Artifacts
from rag.errors import InputError
from rag.params import load_params


def main() -> None:
    """Deploys the project in the working directory to the pool named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m flows.work_pool POOL")
    try:
        made = deploy(Artifacts.here(), sys.argv[1])
    except InputError as error:
        sys.exit(f"error: {error}")
    print(made)


def deploy(artifacts: Artifacts, pool: str) -> str:
    """Makes pool and deployment or brings them up to date; returns a line for people."""
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.deployments.runner import RunnerDeployment
    from prefect.exceptions import ObjectNotFound
    from prefect.types.entrypoint import EntrypointType
    from prefect.workers.process import ProcessWorker

    from flows.retrain import retrain

    with get_client(sync_client=True) as client:
        try:
            kind = client.read_work_pool(pool).type
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            # One at a time: the project's lock would turn a second one away.
            wanted = WorkPoolCreate(
                name=pool, type="process", base_job_template=template, concurrency_limit=1
            )
            kind = client.create_work_pool(wanted).type
    folder = Path.cwd() if kind == "process" else None
    deployment = retrain.to_deployment(
        name=DEPLOYMENT,
        schedule=schedule_of(deployments(params)[0], params.schedule),
        description=f"Retraining of {artifacts.root}",
        entrypoint_type=EntrypointType.MODULE_PATH,
        work_pool_name=pool,
        job_variables={"working_dir": str(folder)} if folder else {},
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
    deployment.apply()
    return f"retrain/{DEPLOYMENT} is deployed to the work pool {pool} ({kind})"


if __name__ == "__main__":
    main()
