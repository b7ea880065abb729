"""The second checkout: its code made that of the run, or refused; the user's checkout untouched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from flows import dvc_files
from flows.lineage import code_files, git_commit, uncommitted_code
from flows.worktree import link_models, released_code, restore_code, worktree
from rag.errors import ReleaseError
from tests.flows.test_run_branch import git, state


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "rag").mkdir(parents=True)
    (root / "rag" / "a.py").write_text("A = 1\n")
    (root / "rag" / "b.py").write_text("B = 1\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@example.com")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=Start")
    return root


def no_release() -> Mapping[str, Path]:
    raise AssertionError("the release is asked for nothing")


def test_it_is_removed_and_leaves_the_checkout_as_it_was(project: Path) -> None:
    (project / "rag" / "a.py").write_text("A = 2\n")
    hook = project / ".git" / "hooks" / "post-checkout"
    hook.write_text("#!/bin/sh\ntouch hooked\n")
    hook.chmod(0o755)
    before = state(project)
    with worktree(project, "HEAD", keep=False) as there:
        assert (there / "rag" / "a.py").read_text() == "A = 1\n"
        assert not there.is_relative_to(project)
        assert not (there / "hooked").exists()
        (there / "rag" / "new.py").write_text("made in it\n")
    assert not there.exists()
    assert state(project) == before
    assert git(project, "worktree", "list").count("\n") == 0


def test_it_is_removed_after_a_failure_and_kept_when_asked(project: Path) -> None:
    with pytest.raises(KeyboardInterrupt), worktree(project, "HEAD", keep=False) as there:
        raise KeyboardInterrupt
    assert not there.exists()
    with worktree(project, "HEAD", keep=True) as kept:
        pass
    assert (kept / "dvc.yaml").is_file()
    git(project, "worktree", "remove", "--force", str(kept))


def test_a_commit_that_is_not_here_says_so(project: Path) -> None:
    with pytest.raises(ReleaseError, match="git fetch"), worktree(project, "f" * 40, keep=False):
        pass


def test_committed_code_is_taken_as_it_is(project: Path) -> None:
    recorded = dvc_files.plain(code_files(project))
    assert uncommitted_code(project) == []
    with worktree(project, "HEAD", keep=False) as there:
        assert restore_code(there, recorded, no_release) == []


def test_code_of_no_commit_comes_from_the_release(project: Path, tmp_path: Path) -> None:
    (project / "rag" / "a.py").write_text("A = 2\n")
    (project / "rag" / "new.py").write_text("N = 1\n")
    (project / "rag" / "b.py").unlink()
    recorded = dvc_files.plain(code_files(project))
    assert uncommitted_code(project) == ["rag/a.py", "rag/b.py", "rag/new.py"]
    assert git_commit(project).endswith("-dirty")
    release = tmp_path / "code"
    (release / "rag").mkdir(parents=True)
    for name in ("a.py", "new.py"):
        (release / "rag" / name).write_bytes((project / "rag" / name).read_bytes())
    git(project, "checkout", "--quiet", "--", ".")
    (project / "rag" / "new.py").unlink()

    def sources() -> Mapping[str, Path]:
        return released_code(release, project / "dvc.yaml")

    with worktree(project, "HEAD", keep=False) as there:
        restored = restore_code(there, recorded, sources)
        assert restored == ["rag/a.py", "rag/b.py", "rag/new.py"]
        assert dvc_files.plain(code_files(there)) == recorded


def test_code_that_is_lost_is_refused_by_name(project: Path, tmp_path: Path) -> None:
    recorded = dvc_files.plain(code_files(project))
    recorded["rag/a.py"]["md5"] = "0" * 32
    (tmp_path / "rag").mkdir()
    (tmp_path / "rag" / "a.py").write_text("A = 3\n")
    with (
        pytest.raises(ReleaseError, match=r"in no commit.*: rag/a\.py; it cannot be reproduced"),
        worktree(project, "HEAD", keep=False) as there,
    ):
        restore_code(there, recorded, lambda: released_code(tmp_path, project / "dvc.yaml"))
    assert not there.exists()


def test_models_outside_git_are_linked_and_compared(project: Path) -> None:
    model = project / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    from rag.weights import checked_folder

    digest = checked_folder("model", model).sha256
    row = {"parameter": "reader.model", "name": "./model", "revision": None, "sha256": digest}
    bundled = {**row, "name": "bundled:minilm"}
    with worktree(project, "HEAD", keep=False) as there:
        assert link_models(project, there, [row, bundled]) == []
        assert (there / "model" / "model.safetensors").read_bytes() == b"weights"
        (model / "config.json").write_text("{}")
        (problem,) = link_models(project, there, [row])
    assert problem.startswith(f"reader.model model: recorded SHA-256 {digest}, found ")
    assert (model / "model.safetensors").is_file(), "the link is removed, not what it leads to"
