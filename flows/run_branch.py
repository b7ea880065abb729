"""A commit of a run's files on a branch of its own, made beside the user's checkout.

Git's plumbing writes it from an index of its own, so HEAD, the user's index and the working tree
stay as they are, and no hook runs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from flows.snapshot import record_of
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.release.redaction import without_credentials

#: Before the run's key, in the branch's name.
PREFIX = "runs/"
_AUTHOR = {"NAME": "ragloop", "EMAIL": "ragloop@localhost"}


def commit(artifacts: Artifacts, key: str) -> str:
    """Commits dvc.lock, params.yaml and the data's record on HEAD; returns the branch `runs/<key>`.

    A run that is repeated replaces its commit. URLs in params.yaml lose their credentials. RagError
    where the project has no commit yet.
    """
    root = artifacts.root
    branch = f"{PREFIX}{key}"
    head = _git(root, "rev-parse", "--verify", "HEAD^{commit}")
    prefix = _git(root, "rev-parse", "--show-prefix")
    files = (root / "dvc.lock", artifacts.params, record_of(artifacts))
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        _git(root, "read-tree", head, variables=index)
        for file in files:
            text = str(without_credentials(file.read_text(encoding="utf-8")))
            blob = _git(root, "hash-object", "-w", "--stdin", text=text)
            entry = f"100644,{blob},{prefix}{file.relative_to(root).as_posix()}"
            _git(root, "update-index", "--add", "--cacheinfo", entry, variables=index)
        tree = _git(root, "write-tree", variables=index)
    made = _git(root, "commit-tree", tree, "-p", head, "-m", f"Run {key}", variables=_author(root))
    _git(root, "update-ref", "-m", "ragloop run", f"refs/heads/{branch}", made)
    return branch


def _author(root: Path) -> dict[str, str]:
    """The user of git; where none is configured, git would refuse to commit."""
    variables = {}
    for field, own in _AUTHOR.items():
        asked = ["git", "config", "--get", f"user.{field.lower()}"]
        known = subprocess.run(asked, cwd=root, capture_output=True, check=False).returncode == 0
        for role in ("AUTHOR", "COMMITTER"):
            if not known and f"GIT_{role}_{field}" not in os.environ:
                variables[f"GIT_{role}_{field}"] = own
    return variables


def _git(
    root: Path, *arguments: str, text: str | None = None, variables: dict[str, str] | None = None
) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        input=text,
        env={**os.environ, **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RagError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()
