"""The flow `refresh`: today's documents for the champion's models; nothing is trained.

    ragloop refresh        # now, from the command line
    ragloop up             # at schedule.refresh_cron of params.yaml

snapshot -> (skip if the champion has these documents) -> prepare, chunk, embed, retrieve, evaluate
-> publish -> log -> compare -> release -> prune

The stages run in a worktree and not below DVC: models that were not made from this data must not
get into its cache as if they had been. The gate asks a refresh only that no answers suffer, and the
run, the version and the ledger say `refresh`, so its gain counts as the documents' and not as a
training's.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from prefect import flow
from prefect.states import Completed

from flows import compare, notices, processes, settings, steps, turn, verdict
from flows.key import REFRESH, code_hash, concluded_row
from flows.lineage import lineage
from flows.retrain import (
    champion_answers,
    concluded,
    cost,
    keep,
    prune,
    publish,
    snapshot,
    tracked,
)
from flows.verdict import Verdict
from rag.artifacts import Artifacts
from rag.errors import RagError, ReleaseError
from rag.params import Params, load_params, parse_params
from rag.records import sorted_json
from rag.stages import STAGES

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from rag.release.registry import ReleaseVersion
    from rag.tracking import RunTracker

#: What is made anew; the models between them are the champion's.
STAGES_OF_A_REFRESH = ("prepare", "chunk", "embed", "retrieve", "evaluate")
#: Sections of params.yaml that belong to the models and to what they read.
_CHAMPIONS = ("chunk", "retriever", "retrieve", "reader")
_KEY_LENGTH = 32


def run_stage(name: str, artifacts: Artifacts, timeout_seconds: float | None) -> str:
    """One stage in a process of its own, in the worktree; RagError with its words if it fails."""
    lines: list[str] = []
    command = [sys.executable, "-m", "rag", name]
    with processes.running(command, artifacts.root) as program:
        try:
            code = processes.follow(
                program,
                on_line=lines.append,
                poll=lambda: None,
                timeout_seconds=timeout_seconds,
            )
        except TimeoutError as error:
            limit = "the limit of schedule.stage_timeout_minutes"
            raise RagError(f"stage {name}: {error}, {limit}") from None
    if code != 0:
        said = [line for line in lines if line.startswith(f"{name}: ")] or lines[-1:]
        raise RagError("; ".join(said) or f"stage {name} ended with exit code {code}")
    return next(stage.summary.rstrip(".") for stage in STAGES if stage.name == name)


stages = {name: steps.task(name, run_stage, str) for name in STAGES_OF_A_REFRESH}


def log_refresh(tracker: RunTracker, artifacts: Artifacts, tags: Mapping[str, str]) -> None:
    """Data, metrics and report into the MLflow run; no checkpoint, since nothing was trained."""
    tracker.set_tags(tags)
    tracker.log_data(artifacts, tags["data_hash"])
    tracker.log_evaluation(artifacts)


def judge(
    artifacts: Artifacts, params: Params, rows: Any, sample: Any, version: str
) -> compare.Judged:
    """The gate's decision about the champion's models with other documents."""
    why = f"a refresh: the models are those of version {version}, the documents make the difference"
    mixed = compare.Mixed(why=why)
    return compare.judge(artifacts, params, rows, mixed, sample, refresh=True)


log = steps.io_task("log", log_refresh, lambda _: "run logged to MLflow")
gate = steps.task("gate", judge, lambda judged: judged.decision.outcome.value)


@flow(name="refresh", flow_run_name=steps.run_name, on_failure=[notices.failed])
def refresh(force: bool = False) -> State[Verdict]:
    """A new index for the champion's models; `force` makes it although nothing has changed."""
    artifacts = Artifacts.here()
    params = load_params(artifacts.params)
    settings.configure(artifacts, params)
    reached = turn.take(
        "refresh",
        artifacts,
        params,
        lambda found: _refresh(found, params, force=force),
        cron=params.schedule.refresh_cron,
        apart=True,
    )
    notices.publish_verdict(reached)
    return Completed(
        name=reached.outcome.capitalize(), message="; ".join(reached.reasons), data=reached
    )


def _refresh(artifacts: Artifacts, today: Params, *, force: bool) -> Verdict:
    from rag.release import ledger, registry

    champion = registry.champion(today)
    if champion is None:
        raise ReleaseError(
            f"{today.release.name} has no champion to refresh; `ragloop run` makes the first one"
        )
    data = snapshot(artifacts)
    released = compare.released_files(artifacts, today, champion)
    params = champions_params(today, load_params(released.params))
    key = refresh_key(data.data_hash, params, artifacts, champion)
    if not force:
        if champion.tags.get("data_hash") == data.data_hash:
            return _nothing_new(champion, key)
        row = concluded_row(ledger.read(artifacts.ledger), key, kind=REFRESH)
        if row:
            return verdict.nothing_changed(artifacts, row, champion.version)

    _take_models(artifacts, params, released)
    tags = {
        **lineage(artifacts, key=key, data_hash=data.data_hash),
        "kind": REFRESH,
        "models_of": champion.version,
        # How the models were made; the rest of a refresh is not in a dvc.lock.
        "dvc_lock": champion.tags.get("dvc_lock", ""),
    }
    _run(("prepare", "chunk", "embed"), artifacts, params)
    if not force and _is_same_index(artifacts, released):
        return _nothing_new(champion, key)
    with tracked(artifacts, params, key, tags, flow_name=REFRESH) as tracker:
        _run(("retrieve", "evaluate"), artifacts, params)
        tags["fingerprint"] = publish(params, artifacts)
        log(tracker, artifacts, tags)
        rows = champion_answers(artifacts, params, champion)
        sample = cost(artifacts, params, champion) if params.gate.cost else None
        judged = gate(artifacts, params, rows, sample, champion.version)
        record = {**keep(judged, tracker.run_id), "kind": REFRESH}
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
    prune(artifacts, params, return_state=True)
    return reached


def champions_params(today: Params, released: Params) -> Params:
    """The champion's models and what they read; everything else as params.yaml has it today."""
    tree = today.model_dump(mode="json")
    made = released.model_dump(mode="json")
    return parse_params({**tree, **{name: made[name] for name in _CHAMPIONS}}, source="refresh")


def refresh_key(
    data_hash: str, params: Params, artifacts: Artifacts, champion: ReleaseVersion
) -> str:
    """What a refresh is made from, as one hash: documents, champion, code and settings."""
    settings_used = {
        section: value
        for section, value in params.model_dump(mode="json").items()
        if section in ("seed", "prepare", "index", "evaluate", "gate", *_CHAMPIONS)
    }
    made_from = {
        "kind": REFRESH,
        "champion": champion.version,
        "code": code_hash(artifacts.root / "rag"),
        "data": data_hash,
        "params": settings_used,
    }
    return hashlib.sha256(sorted_json(made_from).encode()).hexdigest()[:_KEY_LENGTH]


def _take_models(artifacts: Artifacts, params: Params, released: Artifacts) -> None:
    """The champion's models and settings, where the stages look for them in the worktree."""
    (artifacts.root / "dvc.lock").unlink(missing_ok=True)  # it tells of other outputs
    tree = params.model_dump(mode="json")
    artifacts.params.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    for target, source in (
        (artifacts.retriever, released.retriever),
        (artifacts.reader, released.reader),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())


def _run(names: Sequence[str], artifacts: Artifacts, params: Params) -> None:
    for name in names:
        stages[name](name, artifacts, params.schedule.stage_timeout_seconds(name))


def _is_same_index(artifacts: Artifacts, released: Artifacts) -> bool:
    """Whether the documents give the passages that the champion searches already."""
    from rag.retrieval.embeddings import read_facts

    return (
        read_facts(artifacts.embeddings).fingerprint == read_facts(released.embeddings).fingerprint
    )


def _nothing_new(champion: ReleaseVersion, key: str) -> Verdict:
    reason = f"version {champion.version} has an index of these documents: nothing to refresh"
    return Verdict(verdict.SKIPPED, (reason,), key=key, champion=champion.version)
