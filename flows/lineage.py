"""What a run was made from and by, as tags: enough to find every input again."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rag.artifacts import Artifacts
from rag.weights import file_sha256


def lineage(artifacts: Artifacts, *, key: str, data_hash: str) -> dict[str, str]:
    """Tags that hold from the start of a run: key, data, commit, Prefect's run."""
    tags = {"run_key": key, "data_hash": data_hash, "git_commit": git_commit(artifacts.root)}
    return {**tags, **_prefect_run()}


def pipeline_hash(artifacts: Artifacts) -> str:
    """SHA-256 of dvc.lock: every stage's inputs and outputs in one."""
    return file_sha256(artifacts.root / "dvc.lock")


def git_commit(root: Path) -> str:
    """The project's commit, with `-dirty` where files differ from it; `none` before the first."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return "none"
    # What the pipeline itself writes for git to keep does not make the code another one.
    own = (":!dvc.lock", ":!*.dvc")
    is_dirty = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *own)
    return f"{commit}-dirty" if is_dirty else commit


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _prefect_run() -> dict[str, str]:
    from prefect.runtime import flow_run

    if not flow_run.id:
        return {}
    return {"prefect_flow_run": str(flow_run.id), "prefect_flow_run_name": str(flow_run.name)}
