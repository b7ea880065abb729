"""The flows `rollback` and `prune`: what the commands of these names do, started from Prefect.

`ragloop up` serves both; prune also at schedule.prune_cron of params.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.states import Completed

from flows import notices, release_commands, settings, steps, ticks, turn
from rag.artifacts import Artifacts
from rag.errors import BusyError
from rag.params import Params, load_params

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="rollback", flow_run_name=steps.run_name, on_failure=[notices.failed])
def rollback(
    version: str | None = None, reason: str = "rolled back in Prefect", rebuild: bool = False
) -> State[dict[str, Any]]:
    """Makes an earlier champion live again: the one before the last switch unless `version`."""
    artifacts, params = _project()
    with turn.hold(artifacts, params, "rollback"):
        row = release_commands.rollback(artifacts, params, version, reason=reason, rebuild=rebuild)
    message = f"version {row['champion']} is the champion again, after {row['champion_before']}"
    return Completed(name="Rolled back", message=message, data=row)


@flow(name="prune", flow_run_name=steps.run_name, on_failure=[notices.failed])
def prune(dry_run: bool = False) -> State[dict[str, Any]]:
    """Removes what neither an alias nor the newest rows of the ledger reach; or only lists it."""
    artifacts, params = _project()
    late = ticks.too_late(params.schedule, params.schedule.prune_cron)
    if late:
        return Completed(name="Skipped", message=late, data={})
    try:
        with turn.hold(artifacts, params, "prune"):
            pruned = release_commands.prune(artifacts, params, dry_run=dry_run)
    except BusyError as busy:
        if ticks.scheduled_run() is None:
            raise
        return Completed(name="Skipped", message=str(busy), data={})
    return Completed(
        name="Listed" if dry_run else "Pruned", message=pruned.detail, data=pruned.to_json()
    )


def _project() -> tuple[Artifacts, Params]:
    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    return artifacts, params
