"""A second checkout of the project, outside the user's, that shares DVC's cache with it.

A linked worktree of git leaves HEAD, index and files of the user's checkout as they are. What is in
the cache is neither copied nor fetched again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows import dvc, dvc_files, git
from flows.dvc_config import read_config, remote_section, write_local
from flows.lineage import PIPELINE, code_files
from flows.remote import NAME, remote_url
from rag.errors import ModelError, ReleaseError
from rag.weights import checked_folder

#: Begins the name of the folder, in the system's folder for temporary files (TMPDIR).
PREFIX = "ragloop-reproduce-"
_NO_HOOKS = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.hooksPath",
    "GIT_CONFIG_VALUE_0": os.devnull,
}


@contextmanager
def worktree(root: Path, commit: str, *, keep: bool) -> Iterator[Path]:
    """The project as of a commit, in a folder of its own that is removed afterwards unless kept.

    ReleaseError where the repository does not have the commit.
    """
    if not git.ask(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        raise ReleaseError(
            f"commit {commit} is not in this repository; fetch it first: git fetch --all"
        )
    prefix = git.ask(root, "rev-parse", "--show-prefix")
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    add = ("worktree", "add", "--quiet", "--detach")
    try:
        # A checkout's hooks are the user's, for the user's own work.
        git.run(root, *add, str(folder), commit, variables=_NO_HOOKS)
        yield folder / prefix
    finally:
        if not keep:
            git.ask(root, "worktree", "remove", "--force", "--force", str(folder))
            shutil.rmtree(folder, ignore_errors=True)
            git.ask(root, "worktree", "prune")


def share_cache(root: Path, project: Path, remote: str | None) -> None:
    """Points DVC in `project` at the cache and the remotes of the checkout in `root`.

    `remote` is `data.remote`, the default remote where it is set.
    """
    if not (project / ".dvc").is_dir():
        dvc.initialise(project, below_git_root=not (project / ".git").exists())
    config = read_config(root)
    if remote is not None:
        config["core"] = {**config.get("core", {}), "remote": NAME}
        own = config.get(remote_section(NAME), {})
        config[remote_section(NAME)] = {**own, "url": remote_url(root, remote)}
    # Hashes that DVC remembers of other checkouts' files are no evidence here.
    core = {**config.get("core", {}), "site_cache_dir": str(project / ".dvc" / "tmp" / "site")}
    cache = {**config.get("cache", {}), "dir": str(dvc.cache_folder(root))}
    write_local(project, {**config, "core": core, "cache": cache})


def forget_remotes(project: Path) -> None:
    """Takes the remotes out of `.dvc/config.local` again: their settings may hold credentials."""
    config = read_config(project)
    core = {name: value for name, value in config["core"].items() if name != "remote"}
    write_local(project, {"core": core, "cache": config["cache"]})


def restore_code(
    project: Path, recorded: Mapping[str, Any], sources: Callable[[], Mapping[str, Path]]
) -> list[str]:
    """Makes the code of a checkout that of the run; returns the files that the commit did not have.

    `recorded` is path to facts. `sources`, asked only when needed, has files of the run's code by
    path: those of the release itself. ReleaseError where a file cannot be had with its recorded
    hash: what it was, nobody knows any more.
    """
    wanted = {path: str(facts["md5"]) for path, facts in recorded.items()}
    found = {path: facts.md5 for path, facts in code_files(project).items()}
    added = sorted(found.keys() - wanted.keys())
    changed = sorted(path for path, md5 in wanted.items() if found.get(path) != md5)
    known = sources() if changed else {}
    lost = []
    for path in changed:
        source = known.get(path)
        facts = dvc_files.listing(source.parent, source.name) if source else {}
        if source is None or [item.md5 for item in facts.values()] != [wanted[path]]:
            lost.append(path)
            continue
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, project / path)
    if lost:
        raise ReleaseError(
            f"trained with code that was in no commit, and that the release does not hold either: "
            f"{', '.join(lost)}; it cannot be reproduced. Commit code before training with it"
        )
    for path in added:
        (project / path).unlink()
    return sorted([*changed, *added])


def released_code(folder: Path, pipeline: Path) -> dict[str, Path]:
    """The code that a release holds, as `restore_code` takes it; `folder` contains `rag/`."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.*")}
    return {**files, PIPELINE: pipeline}


def link_models(root: Path, project: Path, models: list[dict[str, Any]]) -> list[str]:
    """Links models that are folders of the project and not in git; one line for each that differs.

    `models` are as `lineage_record` has them.
    """
    problems = []
    for model in models:
        name = Path(str(model["name"]))
        here, there = root / name, project / name
        if name.is_absolute() or not (here.is_dir() or there.is_dir()):
            continue
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(here.resolve(), target_is_directory=True)
        try:
            found = checked_folder(str(name), there).sha256
        except ModelError as error:
            found = str(error)
        if found != model["sha256"]:
            problems.append(
                f"{model['parameter']} {name}: recorded SHA-256 {model['sha256']}, found {found}"
            )
    return problems
