"""Where a run works: in the checkout, or in a git worktree that is there for this run alone.

A scheduled run must not change files under a user's hands. It gets a worktree in
`.ragloop/workspace` with what the checkout holds at that moment, edits that are not committed too,
so that it trains what a run in place would train. DVC's cache and the state folder are the
project's own: what was computed before is not computed again, and a killed training goes on from
its checkpoint. docs/scheduling.md says what is found where afterwards.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows import dvc
from flows.snapshot import is_empty, record_of
from rag.artifacts import STATE_FOLDER, Artifacts
from rag.errors import InputError, RagError

if TYPE_CHECKING:
    from rag.params import Params

FOLDER = "workspace"
#: What the last run in a worktree left, for people and for `dvc`.
RESULTS = "last_worktree"
#: New files that git does not know yet come along from these places only: what a run reads.
_READ = (
    *("rag", "flows", "params.yaml", "dvc.yaml", "dvc.lock"),
    *(".dvc", ".dvcignore", ".gitignore", "data/raw.dvc", "data/demo"),
)


def why_in_place(project: Artifacts, params: Params, *, is_scheduled: bool) -> str | None:
    """Why a run works in the checkout itself; None where it gets a worktree.

    InputError where params ask for a worktree and git has no commit to make one of.
    """
    mode = params.schedule.workspace
    if not is_scheduled:
        return "started by hand"
    if mode == "in_place":
        return "schedule.workspace is in_place"
    if _has_commit(project.root):
        return None
    if mode == "worktree":
        raise InputError(
            "schedule.workspace is worktree, and git has no commit to make one of",
            hint="run: git add -A && git commit -m 'Start'",
        )
    return "git has no commit yet"


@contextmanager
def worktree(project: Artifacts, params: Params) -> Iterator[Artifacts]:
    """The project's files in a worktree, its state in the project; the caller holds the lock.

    The worktree is removed however the block ends; what a killed run left is removed first.
    """
    folder = project.state.resolve() / FOLDER
    _remove(project, folder)
    _git(project.root, "worktree", "add", "--quiet", "--detach", "--force", str(folder), "HEAD")
    prefix = _git(project.root, "rev-parse", "--show-prefix").strip()
    artifacts = Artifacts(folder / prefix, state_folder=project.state.resolve())
    try:
        _carry_edits(project.root, artifacts.root)
        (artifacts.root / STATE_FOLDER).symlink_to(artifacts.state)
        _share_cache(project.root, artifacts.root)
        _link_models(project.root, artifacts.root, params)
        _bring_data(project, artifacts)
        yield artifacts
        _keep_results(artifacts)
    finally:
        _remove(project, folder)


def is_apart(artifacts: Artifacts) -> bool:
    """Whether these are the files of a worktree, and not of the checkout."""
    return artifacts.root.resolve() != artifacts.state.resolve().parent


def project_of(artifacts: Artifacts) -> Artifacts:
    """The checkout that a worktree was made from; itself where there is no worktree."""
    return Artifacts(artifacts.state.resolve().parent) if is_apart(artifacts) else artifacts


def bring_data_again(artifacts: Artifacts) -> None:
    """The data of the checkout, which was added to since the worktree was made."""
    if is_apart(artifacts):
        _bring_data(project_of(artifacts), artifacts)


def _has_commit(root: Path) -> bool:
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
    return subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == 0


def _carry_edits(root: Path, target: Path) -> None:
    """What differs from the commit in the checkout differs in the worktree alike."""
    edited = _listed(root, "diff", "--name-only", "--no-renames", "--relative", "-z", "HEAD")
    new = _listed(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *_READ)
    for name in (*edited, *new):
        source, copy = root / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
        else:
            copy.unlink(missing_ok=True)


def _share_cache(root: Path, target: Path) -> None:
    """DVC's own local settings, with the cache where the project has it."""
    local = root / ".dvc" / "config.local"
    if local.is_file():
        shutil.copy2(local, target / ".dvc" / "config.local")
    dvc.set_cache(target, dvc.cache_folder(root))


def _link_models(root: Path, target: Path, params: Params) -> None:
    """Models in folders of the project that git does not keep."""
    for name, _ in params.models():
        source = root / name
        if not Path(name).is_absolute() and source.is_dir() and not (target / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to(source.resolve())


def _bring_data(project: Artifacts, artifacts: Artifacts) -> None:
    """The data of the checkout: as DVC recorded it, or a copy where it is not recorded like that.

    A copy and no hard link: DVC makes the file its own, and an edit in place in the checkout would
    change the cache.
    """
    if is_empty(project.raw):
        return
    record = record_of(project)
    relative = str(record.relative_to(project.root))
    if record.is_file() and not dvc.status(project.root, relative):
        shutil.copy2(record, record_of(artifacts))
        return
    shutil.copytree(project.raw, artifacts.raw, symlinks=False, dirs_exist_ok=True)


def _keep_results(artifacts: Artifacts) -> None:
    """dvc.lock, the record of the data, metrics and report of this run, below the state folder."""
    if not artifacts.metrics.is_file():
        return  # it found nothing to do
    kept = artifacts.state / RESULTS
    lock = artifacts.root / "dvc.lock"
    shutil.rmtree(kept, ignore_errors=True)
    for path in (lock, record_of(artifacts), artifacts.metrics, artifacts.report):
        if path.is_file():
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, kept / path.name)


def _remove(project: Artifacts, folder: Path) -> None:
    """The worktree and git's note of it."""
    if folder.exists():
        shutil.rmtree(folder)
    _git(project.root, "worktree", "prune")


def _listed(root: Path, *arguments: str) -> Sequence[str]:
    return [name for name in _git(root, *arguments).split("\0") if name]


def _git(root: Path, *arguments: str) -> str:
    """What git prints; hooks of the user's do not run."""
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().removeprefix("fatal: ")
        raise RagError(f"git {arguments[0]} failed: {said or f'exit code {done.returncode}'}")
    return done.stdout
