"""The flow `retrain`, one retraining from the data to the verdict. It reads from top to bottom.

    ragloop run            # now, from the command line
    ragloop up             # on the schedule in params.yaml

(take in) -> snapshot -> (skip if nothing changed) -> one task a stage -> publish -> log -> compare
-> release

Tasks hold no logic: each calls one function. Prefect's cache is off, since its key holds the id of
the run; whether there is anything to do is decided by our own content key, and for each stage by
DVC.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.states import Completed

from flows import (
    dvc,
    intake,
    lock,
    notices,
    promote,
    reasons,
    reconcile,
    settings,
    steps,
    stores,
    verdict,
)
from flows.key import concluded_row, content_key
from flows.lineage import lineage, pipeline_hash
from flows.snapshot import take_snapshot
from flows.verdict import Verdict
from rag.artifacts import Artifacts
from rag.errors import BusyError
from rag.params import Params, load_params
from rag.stages import STAGES

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from rag.tracking import RunTracker

take_in = steps.task("take in", intake.take_in, str)
snapshot = steps.task("snapshot", take_snapshot, lambda taken: taken.detail)
stages = {stage.name: steps.stage_task(stage) for stage in STAGES}
publish = steps.io_task("publish", steps.publish_index, lambda name: f"index {name}")
log = steps.io_task("log", steps.log_results, lambda _: "run logged to MLflow")
champion_answers = steps.task(
    "champion", promote.champion_predictions, lambda rows: f"{rows.num_rows} questions asked again"
)
gate = steps.task("gate", promote.decide, lambda decision: decision.outcome.value)
conclude = steps.io_task("release", promote.conclude, lambda row: f"version {row['version']}")


@flow(
    name="retrain",
    flow_run_name=steps.run_name,
    on_failure=[notices.failed],
    on_crashed=[notices.crashed],
)
def retrain(force: bool = False, reason: dict[str, Any] | None = None) -> State[Verdict]:
    """One retraining of the project in the working directory; `force` runs every stage again.

    `reason` is what triggers asked for it with: see `flows.reasons`.
    """
    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    stores.initialise(artifacts, params)
    try:
        with lock.hold(artifacts.lock, "retrain"):
            reconcile.close_dead_runs(artifacts)
            reached = _retrain(artifacts, params, force=force, reason=reason)
    except BusyError as busy:
        if not steps.is_scheduled():
            raise
        reached = Verdict(verdict.SKIPPED, (str(busy),), key="")
    notices.publish_verdict(reached)
    return Completed(
        name=reached.outcome.capitalize(), message="; ".join(reached.reasons), data=reached
    )


def _retrain(
    artifacts: Artifacts, params: Params, *, force: bool, reason: reasons.Reason | None
) -> Verdict:
    from rag.release import ledger, registry

    if intake.applies(artifacts, params):
        take_in(artifacts, params, everything=reason is not None)
    data = snapshot(artifacts)
    key = content_key(data.data_hash, params, artifacts)
    row = concluded_row(ledger.read(artifacts.ledger), key)
    if row and not force and not dvc.status(artifacts.root):
        return verdict.nothing_changed(artifacts, row)

    tags = lineage(artifacts, key=key, data_hash=data.data_hash)
    tags |= reasons.run_tags(reason, scheduled=steps.is_scheduled())
    with _tracked(artifacts, params, key, tags) as tracker:
        shutil.rmtree(artifacts.speed, ignore_errors=True)  # of the trainings of other runs
        for stage in STAGES:
            stages[stage.name](artifacts, tracker, force=force)
        tags["dvc_lock"] = pipeline_hash(artifacts)
        tags["fingerprint"] = publish(params, artifacts)
        log(tracker, artifacts, tags)

        champion = registry.champion(params)
        if champion and champion.tags.get("run_key") == key:
            promote.confirm_champion(artifacts, key, champion)
            return verdict.same_as_champion(artifacts, key, champion.version)
        rows = champion_answers(artifacts, params, champion) if champion else None
        decision = gate(artifacts, params, rows)
        tracker.log_decision(decision)
        concluded = conclude(
            artifacts,
            params,
            decision,
            key=key,
            run_id=tracker.run_id,
            tags=tags,
            champion=champion,
        )
        return verdict.of_run(artifacts, params, concluded, rows, page=tracker.page)


@contextmanager
def _tracked(
    artifacts: Artifacts, params: Params, key: str, tags: Mapping[str, Any]
) -> Iterator[RunTracker]:
    """The MLflow run of this key, which ends as the block does."""
    from rag.tracking import RunTracker

    tracker = RunTracker.open(artifacts, params, key=key, name=f"retrain-{key[:8]}", tags=tags)
    try:
        tracker.log_params(params)
        yield tracker
    except Exception:
        tracker.finish("FAILED")
        raise
    except BaseException:  # Ctrl-C, or the cancellation of the flow run
        tracker.finish("KILLED")
        raise
    tracker.finish()
