"""The worktree of a scheduled run: what it holds, and that the checkout stays as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows import dvc, workspace
from rag.artifacts import Artifacts
from rag.errors import InputError, RagError
from rag.params import Params, parse_params
from tests.flows.programs import set_params

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]


@pytest.fixture
def project(dvc_project: Artifacts) -> Artifacts:
    """The tiny project, committed, with data that DVC has recorded and a state folder."""
    documents = dvc_project.raw / "documents"
    documents.mkdir(parents=True)
    (documents / "a.md").write_text("first")
    dvc.add(dvc_project.root, dvc_project.raw)
    for command in (["add", "--all"], ["commit", "--quiet", "--message=Start"]):
        subprocess.run([*GIT, *command], cwd=dvc_project.root, check=True)
    dvc_project.state.mkdir()
    return dvc_project


def everything(root: Path) -> dict[str, bytes]:
    """Files of the checkout but for git's, DVC's and our own state."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in (".git", ".dvc", ".ragloop")
    }


def test_it_holds_the_checkout_with_its_edits_and_changes_nothing_there(project: Artifacts) -> None:
    root = project.root
    set_params(root, x=5)  # not committed
    (root / "rag").mkdir()
    (root / "rag" / "new.py").write_text("new = 1\n")  # git does not know it
    (root / "holiday.jpg").write_bytes(b"not ours")
    (project.raw / "documents" / "b.md").write_text("second, not recorded")
    before = everything(root)
    with workspace.worktree(project, Params()) as apart:
        assert workspace.is_apart(apart)
        assert workspace.project_of(apart).root == root
        assert apart.state == project.state
        assert apart.params.read_text() == (root / "params.yaml").read_text()
        assert (apart.root / "rag" / "new.py").read_text() == "new = 1\n"
        assert not (apart.root / "holiday.jpg").exists()
        names = sorted(path.name for path in (apart.raw / "documents").iterdir())
        assert names == ["a.md", "b.md"]
        done = dvc.reproduce("work", apart)
        assert (done.result, (apart.root / "out.txt").read_text()) == ("Ran", "5")
    assert everything(root) == before
    assert not (project.state / workspace.FOLDER).exists()
    listed = subprocess.run(
        ["git", "worktree", "list"], cwd=root, capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1
    # What was computed there is in the project's cache.
    assert dvc.reproduce("work", project).result == "Cached"
    assert (root / "out.txt").read_text() == "5"


def test_recorded_data_comes_from_the_cache_and_a_deleted_file_is_gone(project: Artifacts) -> None:
    (project.root / "work.py").unlink()
    with workspace.worktree(project, Params()) as apart:
        assert not (apart.root / "work.py").exists()
        assert not apart.raw.exists()
        dvc.checkout(apart.root, "data/raw.dvc")
        assert (apart.raw / "documents" / "a.md").read_text() == "first"


def test_a_failure_leaves_no_worktree_and_a_killed_run_is_swept(project: Artifacts) -> None:
    left = project.state / workspace.FOLDER
    with pytest.raises(RagError, match="stops"), workspace.worktree(project, Params()):
        raise RagError("it stops")
    assert not left.exists()
    left.mkdir()
    (left / "of a killed run").write_text("")
    with workspace.worktree(project, Params()) as apart:
        assert not (apart.root / "of a killed run").exists()


def test_who_gets_one(project: Artifacts, tmp_path: Path) -> None:
    def why(mode: str, root: Path, *, is_scheduled: bool = True) -> str | None:
        params = parse_params({"schedule": {"workspace": mode}})
        return workspace.why_in_place(Artifacts(root), params, is_scheduled=is_scheduled)

    assert why("auto", project.root) is None
    assert why("worktree", project.root) is None
    assert why("worktree", project.root, is_scheduled=False) == "started by hand"
    assert why("in_place", project.root) == "schedule.workspace is in_place"
    empty = tmp_path / "empty"
    empty.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=empty, check=True)
    assert why("auto", empty) == "git has no commit yet"
    with pytest.raises(InputError, match="git has no commit to make one of"):
        why("worktree", empty)
