"""The flow `retrain`, one retraining from the data to the verdict. It reads from top to bottom.

    ragloop run            # now, from the command line
    ragloop up             # on the schedule in params.yaml

(take in) -> snapshot -> (skip if nothing changed) -> one task a stage -> publish -> log -> compare
-> review -> release -> prune -> push

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
    notices,
    openlineage,
    promote,
    reasons,
    reconcile,
    release_commands,
    remote,
    settings,
    steps,
    turn,
    verdict,
    workspace,
)
from flows.key import concluded_row, content_key
from flows.lineage import lineage, log_lineage, pipeline_hash
from flows.review_gate import has_news
from flows.snapshot import take_snapshot
from flows.verdict import Verdict
from rag.artifacts import Artifacts
from rag.params import Params, load_params
from rag.stages import STAGES

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State
    from pyarrow import Table

    from rag.release.registry import ReleaseVersion
    from rag.tracking import RunTracker

take_in = steps.task("take in", intake.take_in, str)
snapshot = steps.task("snapshot", take_snapshot, lambda taken: taken.detail)
stages = {stage.name: steps.stage_task(stage) for stage in STAGES}
publish = steps.io_task("publish", steps.publish_index, lambda name: f"index {name}")
log = steps.io_task("log", steps.log_results, lambda _: "run logged to MLflow")
trace = steps.quiet_io_task("lineage", log_lineage)
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
push = steps.io_task("push", remote.push, str)


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
    when = params.schedule
    reached = turn.take(
        "retrain",
        artifacts,
        params,
        # A worktree holds the params of its moment, and DVC reads them there.
        lambda found: _retrained(found, load_params(found.params), force=force, reason=reason),
        cron=None if when.interval_seconds else when.cron,
    )
    notices.publish_verdict(reached)
    return Completed(
        name=reached.outcome.capitalize(), message="; ".join(reached.reasons), data=reached
    )


def _retrained(
    artifacts: Artifacts, params: Params, *, force: bool, reason: reasons.Reason | None
) -> Verdict:
    """The run, with the second copy of data and outputs behind it where there is one."""
    remote.configure(artifacts, params)
    if intake.applies(artifacts, params):
        take_in(artifacts, params, everything=reason is not None)
    reached = _retrain(artifacts, params, force=force, reason=reason)
    if remote.is_behind(artifacts, params):
        remote.tell(push(artifacts, params, return_state=True))
    return reached


def _retrain(
    artifacts: Artifacts, params: Params, *, force: bool, reason: reasons.Reason | None
) -> Verdict:
    from rag.release import ledger, registry

    data = snapshot(artifacts)
    key = content_key(data.data_hash, params, artifacts)
    row = concluded_row(ledger.read(artifacts.ledger), key)
    if row and not force and not has_news(workspace.project_of(artifacts), params, row):
        if not workspace.is_apart(artifacts) and dvc.status(artifacts.root):
            run_stages(artifacts, params, None)  # the verdict stands; only files are missing here
        live = registry.champion(params)
        return verdict.nothing_changed(artifacts, row, live.version if live else None)

    tags = lineage(artifacts, key=key, data_hash=data.data_hash)
    tags |= reasons.run_tags(reason, scheduled=steps.is_scheduled())
    with tracked(artifacts, params, key, tags) as tracker:
        shutil.rmtree(artifacts.speed, ignore_errors=True)  # of the trainings of other runs
        run_stages(artifacts, params, tracker, force=force)
        tags["dvc_lock"] = pipeline_hash(artifacts)
        tags["fingerprint"] = publish(params, artifacts)
        log(tracker, artifacts, tags)

        champion = registry.champion(params)
        trace(tracker, artifacts, params, champion)
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
        reached = concluded(
            tracker,
            artifacts,
            params,
            judged,
            rows,
            record=record,
            champion=champion,
            key=key,
            tags=tags,
        )
    # What is live is live: a prune that fails is shown, and the next one goes on with it.
    prune(artifacts, params, return_state=True)
    return reached


def concluded(
    tracker: RunTracker,
    artifacts: Artifacts,
    params: Params,
    judged: compare.Judged,
    rows: Table | None,
    *,
    record: Mapping[str, Any],
    champion: ReleaseVersion | None,
    key: str,
    tags: Mapping[str, Any],
) -> Verdict:
    """What follows a decision: it is logged and shown, carried out, and told."""
    tracker.log_decision({**judged.decision.to_json(), **record, "tags": tags})
    review(tracker, params, artifacts, champion=rows, decision=judged.decision)
    row = conclude(
        artifacts,
        params,
        judged.decision,
        key=key,
        run_id=tracker.run_id,
        tags=tags,
        champion=champion,
        record=record,
    )
    mirror(params, row, return_state=True)  # what is live is live, told of or not
    return verdict.of_run(artifacts, params, row, rows, page=tracker.page)


def run_stages(
    artifacts: Artifacts, params: Params, tracker: RunTracker | None, *, force: bool = False
) -> None:
    """Every stage in its order, each in the time that it may take."""
    with openlineage.observed(artifacts, params) as events:
        for stage in STAGES:
            limit = params.schedule.stage_timeout_seconds(stage.name)
            with events.stage(stage.name):
                stages[stage.name](artifacts, tracker, force=force, timeout_seconds=limit)


@contextmanager
def tracked(
    artifacts: Artifacts,
    params: Params,
    key: str,
    tags: Mapping[str, Any],
    *,
    flow_name: str = "retrain",
) -> Iterator[RunTracker]:
    """The MLflow run of this key, which ends as the block does."""
    from rag.tracking import RunTracker

    tracker = RunTracker.open(artifacts, params, key=key, name=f"{flow_name}-{key[:8]}", tags=tags)
    try:
        tracker.set_tags(reconcile.identity_tags(artifacts))
        tracker.log_params(params)
        yield tracker
    except Exception:
        tracker.finish("FAILED")
        raise
    except BaseException:  # Ctrl-C, or the cancellation of the flow run
        tracker.finish("KILLED")
        raise
    tracker.finish()
