"""A run's commit on a branch of its own: the user's HEAD, index and files stay as they are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows import run_branch
from rag.artifacts import Artifacts
from rag.errors import RagError

LOCK = "schema: '2.0'\nstages: {}\n"
RECORD = "outs:\n- md5: aa.dir\n  path: raw\n"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def state(folder: Path) -> tuple[str, ...]:
    """All that a user sees of a checkout."""
    asked = (
        ("rev-parse", "HEAD"),
        ("symbolic-ref", "HEAD"),
        ("ls-files", "--stage"),
        ("status", "--porcelain"),
    )
    return tuple(git(folder, *arguments) for arguments in asked)


@pytest.fixture
def project(tmp_path: Path) -> Artifacts:
    """A project below the root of its repository, with staged and unstaged changes."""
    root = tmp_path / "repository" / "project"
    (root / "data").mkdir(parents=True)
    (root / "params.yaml").write_text("seed: 1\n")
    (root / "code.py").write_text("one\n")
    git(root, "init", "--quiet", "--initial-branch=main", "..")
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@example.com")
    git(root, "add", "--all", "..")
    git(root, "commit", "--quiet", "--message=Start")
    (root / "staged.py").write_text("staged\n")
    git(root, "add", "staged.py")
    (root / "code.py").write_text("two\n")
    (root / "params.yaml").write_text("uri: http://me:secret@host/x  # ours\n")
    (root / "dvc.lock").write_text(LOCK)
    (root / "data" / "raw.dvc").write_text(RECORD)
    return Artifacts(root)


def test_a_run_is_committed_beside_the_checkout(project: Artifacts) -> None:
    hook = Path(git(project.root, "rev-parse", "--absolute-git-dir")) / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    before = state(project.root)
    assert run_branch.commit(project, "a1b2") == "runs/a1b2"
    assert state(project.root) == before
    shown = git(project.root, "show", "--format=%an %s", "--name-only", "runs/a1b2").split("\n\n")
    assert shown[0] == "Ada Run a1b2"
    assert shown[1].splitlines() == [
        *("project/data/raw.dvc", "project/dvc.lock", "project/params.yaml")
    ]
    assert git(project.root, "rev-parse", "runs/a1b2^") == before[0]
    assert git(project.root, "show", "runs/a1b2:./dvc.lock") + "\n" == LOCK
    assert git(project.root, "show", "runs/a1b2:./params.yaml") == "uri: http://host/x  # ours"


def test_a_repeated_run_replaces_its_commit(project: Artifacts) -> None:
    run_branch.commit(project, "a1b2")
    (project.root / "dvc.lock").write_text(LOCK + "# again\n")
    run_branch.commit(project, "a1b2")
    assert git(project.root, "show", "runs/a1b2:./dvc.lock").endswith("# again")
    assert git(project.root, "rev-list", "--count", "main..runs/a1b2") == "1"


def test_before_the_first_commit_there_is_nothing_to_commit_on(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    with pytest.raises(RagError, match="git rev-parse failed"):
        run_branch.commit(Artifacts(tmp_path), "a1b2")
