"""The flows `rollback`, `prune` and `tune`: what the commands do, started from Prefect.

`ragloop up` serves them; prune also at schedule.prune_cron of params.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.states import Completed

from flows import notices, reconcile, release_commands, settings, steps, ticks, turn
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


@flow(
    name="tune",
    flow_run_name=steps.run_name,
    on_failure=[notices.failed],
    on_crashed=[notices.crashed],
)
def tune(trials: int | None = None, timeout_minutes: float | None = None) -> State[dict[str, Any]]:
    """Searches for better parameters; writes none of them, which `ragloop tune --apply` does."""
    artifacts, params = _project()
    reconcile.label_flow_run(artifacts)  # a search takes hours: its age does not say that it died
    from flows import tune as searching  # and with it optuna, which is an extra

    result = searching.tune(artifacts, params, trials=trials, timeout_minutes=timeout_minutes)
    best = result["best"]
    values = ", ".join(f"{key} {value}" for key, value in best["params"].items())
    message = f"trial {best['trial']} is best, {result['metric']} {best['value']:.2f}: {values}"
    return Completed(name="Searched", message=message, data=result)


def _project() -> tuple[Artifacts, Params]:
    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    return artifacts, params
