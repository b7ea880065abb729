"""A release made again from its commit and its data, and compared with what was recorded.

The user's checkout is not touched: commit, data and params of the run go into a worktree of their
own. Every stage runs there anew, and every byte that it writes is compared with the run's dvc.lock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from flows import dvc, dvc_files, machine, terminal
from flows.differences import Difference, compare_inputs, compare_metrics, compare_stages
from flows.lineage import DATA, LOCK, PARAMS, PIPELINE
from flows.provenance import Origin, read_origin
from flows.snapshot import record_of
from flows.worktree import (
    forget_remotes,
    link_models,
    released_code,
    restore_code,
    share_cache,
    worktree,
)
from rag.artifacts import Artifacts
from rag.errors import RagError, ReleaseError
from rag.params import Params
from rag.release.card import read_metrics

#: Every byte of every output is as recorded.
IDENTICAL = "IDENTICAL"
#: Another kind of machine: bytes differ, and every metric lies in its recorded interval.
EQUIVALENT = "EQUIVALENT"
DIFFERENT = "DIFFERENT"


@dataclass(frozen=True)
class Reproduction:
    """How a release came out again. `machine` lists what differs from the machine of the run.

    `uncommitted` are files of the code that no commit has, taken from the release itself.
    """

    version: str
    outcome: str
    commit: str
    uncommitted: tuple[str, ...]
    machine: tuple[str, ...]
    problems: tuple[str, ...]
    differences: tuple[Difference, ...]
    stages: tuple[str, ...]
    files: int
    metrics: tuple[Mapping[str, Any], ...]
    seconds: float
    folder: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for `--json`."""
        return asdict(self)


def reproduce(artifacts: Artifacts, params: Params, version: str, *, keep: bool) -> Reproduction:
    """Makes a version again; ReleaseError where what it was made from cannot be had.

    `keep` leaves the worktree, whose folder the result names.
    """
    started = time.monotonic()
    origin = read_origin(artifacts, params, version)
    _check_is_recorded(origin)
    machines = tuple(machine.differences(origin.record["machine"], machine.machine()))
    with worktree(artifacts.root, origin.commit, keep=keep) as project:
        uncommitted = _restore(artifacts, origin, project, params.data.remote)
        problems = link_models(artifacts.root, project, origin.record["models"])
        changed = _fetch_data(artifacts, origin, project)
        stages: tuple[str, ...] = ()
        metrics: list[dict[str, Any]] = []
        if not problems and not changed:
            stages = _run_stages(project, keep=keep)
            changed = _compare(origin, project)
            metrics = compare_metrics(origin.metrics, read_metrics(Artifacts(project).metrics))
    return Reproduction(
        version=origin.release.version,
        outcome=outcome(bool(problems or changed), bool(stages), machines, metrics),
        commit=origin.commit,
        uncommitted=tuple(uncommitted),
        machine=machines,
        problems=tuple(problems),
        differences=tuple(changed),
        stages=stages,
        files=len(origin.record["outputs"]) if stages else 0,
        metrics=tuple(metrics),
        seconds=round(time.monotonic() - started, 1),
        folder=str(project) if keep else None,
    )


def _check_is_recorded(origin: Origin) -> None:
    version = origin.release.version
    missing = sorted({LOCK, PIPELINE, PARAMS, DATA} - origin.files.keys())
    if not origin.is_recorded or missing:
        raise ReleaseError(
            f"version {version} cannot be reproduced: its run keeps no lineage"
            f"{' (' + ', '.join(missing) + ')' if missing else ''}; it was made by an earlier "
            "ragloop, or its run was removed. `ragloop lineage` shows what is known of it"
        )
    if origin.commit == "none":
        raise ReleaseError(
            f"version {version} was trained before the project's first commit; commit the code, "
            "and the next version can be reproduced"
        )


def _restore(artifacts: Artifacts, origin: Origin, project: Path, remote: str | None) -> list[str]:
    """Code and params of the run; returns the files of the code that no commit has."""
    import mlflow

    with terminal.step("checkout") as step, TemporaryDirectory() as scratch:

        def sources() -> Mapping[str, Path]:
            uri = f"models:/{origin.release.model_id}"
            fetched = mlflow.artifacts.download_artifacts(uri, dst_path=f"{scratch}/model")
            pipeline = Path(scratch) / PIPELINE
            pipeline.write_text(origin.files[PIPELINE], encoding="utf-8")
            return released_code(Path(fetched) / "code", pipeline)

        Path(scratch, "model").mkdir()
        uncommitted = restore_code(project, origin.record["code"], sources)
        targets = {LOCK: project / LOCK, PARAMS: project / PARAMS}
        targets[DATA] = record_of(Artifacts(project))
        for name, path in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(origin.files[name], encoding="utf-8")
        share_cache(artifacts.root, project, remote)
        step.finish(f"commit {origin.commit[:12]}")
    return uncommitted


def _fetch_data(artifacts: Artifacts, origin: Origin, project: Path) -> list[Difference]:
    """Puts the run's data in place, from the cache or the remote; the files that are not as then.

    DVC trusts what it has in its cache, so the files themselves are hashed here.
    """
    record = str(record_of(Artifacts(project)).relative_to(project))
    with terminal.step("data") as step:
        where = "from DVC's cache"
        try:
            dvc.checkout(project, record)
        except RagError:
            where = "fetched from the remote"
            try:
                dvc.pull(project, record)
            except RagError as error:
                raise ReleaseError(
                    f"the data of version {origin.release.version} is not in DVC's cache, and "
                    f"cannot be fetched ({error}); name the remote that has it as data.remote"
                ) from None
        forget_remotes(project)
        recorded = {path: facts["md5"] for path, facts in origin.record["data"].items()}
        found = dvc_files.listing(project, Artifacts(project).raw.relative_to(project).as_posix())
        step.finish(f"{len(found)} files, {where}")
    return compare_inputs(dvc_files.read_lock(origin.files[LOCK]), recorded, found)


def _run_stages(project: Path, *, keep: bool) -> tuple[str, ...]:
    """Every stage of the run's own dvc.yaml, anew; its cached outputs would prove nothing."""
    stages = tuple(yaml.safe_load((project / PIPELINE).read_text(encoding="utf-8"))["stages"])
    for stage in stages:
        with terminal.step(stage) as step:
            try:
                done = dvc.reproduce(stage, Artifacts(project), force=True)
            except RagError as error:
                gone = "" if keep else "; its folder is gone, and `--keep` leaves it"
                raise ReleaseError(f"{error}{gone}") from None
            step.finish(done.result.lower())
    return stages


def _compare(origin: Origin, project: Path) -> list[Difference]:
    record = origin.record
    recorded_files = {
        path: str(facts["md5"])
        for part in ("data", "code", "outputs")
        for path, facts in record[part].items()
    }
    return compare_stages(
        dvc_files.read_lock(origin.files[LOCK]),
        dvc_files.read_lock((project / LOCK).read_text(encoding="utf-8")),
        recorded_files,
        lambda path: dvc_files.listing(project, path),
    )


def outcome(
    differs: bool, ran: bool, machines: Sequence[str], metrics: Sequence[Mapping[str, Any]]
) -> str:
    """The verdict: bytes decide; on another kind of machine, metrics may speak for a release.

    `ran` is false where inputs were not what they were, and nothing was made.
    """
    if not differs:
        return IDENTICAL
    if ran and machines and metrics and all(row["within"] for row in metrics):
        return EQUIVALENT
    return DIFFERENT


def print_reproduction(found: Reproduction) -> None:
    """The outcome, then what differs, and where to look."""
    from rich.markup import escape

    console = terminal.result_console()
    style = {IDENTICAL: "green", EQUIVALENT: "yellow"}.get(found.outcome, "red")
    console.print(f"[bold {style}]{found.outcome}[/]: {escape(_headline(found))}", soft_wrap=True)
    if found.uncommitted:
        console.print(
            f"  [yellow]code that no commit has, taken from the release itself:[/] "
            f"{escape(', '.join(found.uncommitted))}",
            soft_wrap=True,
        )
    for line in (*found.problems, *(item.spoken() for item in found.differences)):
        console.print(f"  {escape(line)}", soft_wrap=True)
    if found.machine:
        console.print("  another kind of machine: " + escape("; ".join(found.machine)))
    for row in found.metrics:
        now = "none" if row["reproduced"] is None else f"{row['reproduced']:.2f}"
        console.print(
            f"  {escape(row['metric']):20} recorded {row['recorded']:.2f} "
            f"[dim]({row['low']:.2f} to {row['high']:.2f})[/], reproduced {now}"
        )
    if found.folder:
        console.print(f"  kept: {escape(found.folder)}", soft_wrap=True)


def _headline(found: Reproduction) -> str:
    made = f"version {found.version} from commit {found.commit[:12]}"
    if not found.stages:
        return f"{made} was not made again: its inputs are not what they were"
    if found.outcome == IDENTICAL:
        return f"{made}: {found.files} files of {len(found.stages)} stages, every byte as recorded"
    count = len(found.differences)
    return f"{made}: {count} files of {found.files} differ"
