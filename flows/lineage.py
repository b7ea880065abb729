"""What a run was made from and by: tags, and the files in the run that let it be made again.

The folder `lineage/` of an MLflow run holds dvc.lock, dvc.yaml, params.yaml (URLs without their
credentials), the `.dvc` file of the data, and `lineage.json`: every file of data and code with its
hash, the base models, the machine, and the champion before. `ragloop lineage` and
`ragloop reproduce` read nothing else of the past.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import dvc_files, git, run_branch
from flows.experiments import experiment_name
from flows.machine import machine
from flows.snapshot import record_of
from rag.artifacts import Artifacts
from rag.params import Params
from rag.release.redaction import without_credentials
from rag.tracking import RUN_KEY
from rag.weights import file_sha256, resolve_weights

if TYPE_CHECKING:
    from rag.release.registry import ReleaseVersion
    from rag.tracking import RunTracker

FOLDER = "lineage"
RECORD = "lineage.json"
LOCK = "dvc.lock"
PIPELINE = "dvc.yaml"
PARAMS = "params.yaml"
DATA = "raw.dvc"
FORMAT = 1

#: Where params name a model, and where its revision.
_MODELS = (
    ("retriever.model", "retriever.revision"),
    ("reader.model", "reader.revision"),
    ("reader.decoder", "reader.decoder_revision"),
    ("retrieve.rerank.model", "retrieve.rerank.revision"),
)


def lineage(artifacts: Artifacts, *, key: str, data_hash: str) -> dict[str, str]:
    """Tags that hold from the start of a run: key, data, commit, Prefect's run."""
    tags = {"run_key": key, "data_hash": data_hash, "git_commit": git_commit(artifacts.root)}
    return {**tags, **_prefect_run()}


def pipeline_hash(artifacts: Artifacts) -> str:
    """SHA-256 of dvc.lock: every stage's inputs and outputs in one."""
    return file_sha256(artifacts.root / LOCK)


def log_lineage(
    tracker: RunTracker, artifacts: Artifacts, params: Params, champion: ReleaseVersion | None
) -> None:
    """Logs what the run was made from, after its stages.

    A run that is a release already keeps what it has: that is what the release was made from, and
    the champion of today is none of its parents.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    if client.search_model_versions(f"run_id = '{tracker.run_id}'"):
        return
    root = artifacts.root
    sources = {LOCK: root / LOCK, PIPELINE: root / PIPELINE, PARAMS: artifacts.params}
    sources[DATA] = record_of(artifacts)
    for name, path in sources.items():
        text = str(without_credentials(path.read_text(encoding="utf-8")))
        client.log_text(tracker.run_id, text, f"{FOLDER}/{name}")
    record = json.dumps(lineage_record(artifacts, params, champion), indent=1, sort_keys=True)
    client.log_text(tracker.run_id, record, f"{FOLDER}/{RECORD}")
    if experiment := experiment_name(root):
        tracker.set_tags({"dvc_exp": experiment})
    if params.data.commit_runs:
        key = client.get_run(tracker.run_id).data.tags[RUN_KEY]
        tracker.set_tags({"branch": run_branch.commit(artifacts, key)})


def lineage_record(
    artifacts: Artifacts, params: Params, champion: ReleaseVersion | None
) -> dict[str, Any]:
    """The content of lineage.json; paths are relative to the project's folder."""
    root = artifacts.root
    stages = dvc_files.read_lock((root / LOCK).read_text(encoding="utf-8"))
    outputs: dict[str, dvc_files.FileFacts] = {}
    for stage in stages:
        for path in stage.outputs:
            outputs |= dvc_files.listing(root, path)
    return {
        "format": FORMAT,
        "commit": git_commit(root),
        "uncommitted": uncommitted_code(root),
        "data": dvc_files.plain(dvc_files.listing(root, _relative(artifacts.raw, root))),
        "code": dvc_files.plain(code_files(root)),
        "outputs": dvc_files.plain(outputs),
        "models": base_models(artifacts, params),
        "machine": machine(),
        "champion": _parent(champion),
    }


def code_files(root: Path) -> dict[str, dvc_files.FileFacts]:
    """What a stage runs: every file of `rag/`, and dvc.yaml."""
    return {**dvc_files.listing(root, "rag"), **dvc_files.listing(root, PIPELINE)}


def base_models(artifacts: Artifacts, params: Params) -> list[dict[str, str | None]]:
    """The models that training starts from: parameter, name, revision, SHA-256 of the content."""
    flat = params.flat()
    found = []
    for key, revision_key in _MODELS:
        name, revision = flat.get(key), flat.get(revision_key)
        if name is not None:
            weights = resolve_weights(name, revision, artifacts.weights_cache)
            row = {"parameter": key, "name": name, "revision": revision, "sha256": weights.sha256}
            found.append(row)
    return found


def git_commit(root: Path) -> str:
    """The project's commit, with `-dirty` where files differ from it; `none` before the first."""
    commit = git.ask(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return "none"
    # What the pipeline itself writes for git to keep does not make the code another one.
    own = (":!dvc.lock", ":!*.dvc")
    is_dirty = git.ask(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *own)
    return f"{commit}-dirty" if is_dirty else commit


def uncommitted_code(root: Path) -> list[str]:
    """Files of the code that differ from the commit, new and removed ones too."""
    command = ("status", "--porcelain", "--untracked-files=all", "--no-renames")
    lines = git.ask(root, *command, "--", "rag", PIPELINE).splitlines()
    prefix = git.ask(root, "rev-parse", "--show-prefix")
    paths = (line.split(maxsplit=1)[1].strip('"') for line in lines)
    return sorted(path.removeprefix(prefix) for path in paths)


def _parent(champion: ReleaseVersion | None) -> Mapping[str, str] | None:
    if champion is None:
        return None
    return {"version": champion.version, "run_id": champion.run_id}


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _prefect_run() -> dict[str, str]:
    from prefect.runtime import flow_run

    if not flow_run.id:
        return {}
    return {"prefect_flow_run": str(flow_run.id), "prefect_flow_run_name": str(flow_run.name)}
