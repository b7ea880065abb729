"""The flow `retrain`, one retraining from the data to the verdict. It reads from top to bottom.

    ragloop run            # now, from the command line
    ragloop up             # on the schedule in params.yaml

(take in) -> snapshot -> (skip if nothing changed) -> one task a stage -> publish -> log -> compare
-> review -> release -> prune

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
    compare,
    dvc,
    intake,
    lock,
    notices,
    promote,
    reasons,
    reconcile,
    release_commands,
    settings,
    steps,
    stores,
    verdict,
)
from flows.key import concluded_row, content_key
from flows.lineage import lineage, pipeline_hash
from flows.review_gate import has_news
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
    "champion", compare.champion_predictions, lambda rows: f"{rows.num_rows} questions asked again"
)
mixed_answers = steps.task("attribution", compare.mixed_predictions, lambda mixed: mixed.detail)
cost = steps.task("cost", compare.measure_cost, lambda sample: sample.detail)
gate = steps.task("gate", compare.judge, lambda judged: judged.decision.outcome.value)
keep = steps.quiet_io_task("keep", compare.keep)
mirror = steps.quiet_io_task("mirror", compare.mirror)
review = steps.io_task("review", steps.log_review, lambda count: f"report, {count} traces")
conclude = steps.io_task("release", promote.conclude, lambda row: f"version {row['version']}")
prune = steps.io_task("prune", release_commands.prune_old, lambda found: found.detail)


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
            reconcile.reconcile(artifacts, params)
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
    is_done = row and not has_news(artifacts, params, row)
    if row and is_done and not force and not dvc.status(artifacts.root):
        live = registry.champion(params)
        return verdict.nothing_changed(artifacts, row, live.version if live else None)

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
        rows = mixed = sample = None
        if champion:
            rows = champion_answers(artifacts, params, champion)
            mixed = mixed_answers(artifacts, params, champion)
            sample = cost(artifacts, params, champion) if params.gate.cost else None
        judged = gate(artifacts, params, rows, mixed, sample)
        record = keep(judged, tracker.run_id)
        tracker.log_decision({**judged.decision.to_json(), **record, "tags": tags})
        review(tracker, params, artifacts, champion=rows, decision=judged.decision)
        concluded = conclude(
            artifacts,
            params,
            judged.decision,
            key=key,
            run_id=tracker.run_id,
            tags=tags,
            champion=champion,
            record=record,
        )
        mirror(params, concluded, return_state=True)  # what is live is live, told of or not
        reached = verdict.of_run(artifacts, params, concluded, rows, page=tracker.page)
    # What is live is live: a prune that fails is shown, and the next one goes on with it.
    prune(artifacts, params, return_state=True)
    return reached


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
