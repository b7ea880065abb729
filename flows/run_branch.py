"""A commit of a run's files on a branch of its own, made beside the user's checkout.

Git's plumbing writes it from an index of its own, so HEAD, the user's index and the working tree
stay as they are, and no hook runs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flows import git
from flows.snapshot import record_of
from rag.artifacts import Artifacts
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
    head = git.run(root, "rev-parse", "--verify", "HEAD^{commit}")
    prefix = git.run(root, "rev-parse", "--show-prefix")
    files = (root / "dvc.lock", artifacts.params, record_of(artifacts))
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        git.run(root, "read-tree", head, variables=index)
        for file in files:
            text = str(without_credentials(file.read_text(encoding="utf-8")))
            blob = git.run(root, "hash-object", "-w", "--stdin", text=text)
            entry = f"100644,{blob},{prefix}{file.relative_to(root).as_posix()}"
            git.run(root, "update-index", "--add", "--cacheinfo", entry, variables=index)
        tree = git.run(root, "write-tree", variables=index)
    made = git.run(
        root, "commit-tree", tree, "-p", head, "-m", f"Run {key}", variables=_author(root)
    )
    git.run(root, "update-ref", "-m", "ragloop run", f"refs/heads/{branch}", made)
    return branch


def _author(root: Path) -> dict[str, str]:
    """The user of git; where none is configured, git would refuse to commit."""
    variables = {}
    for field, own in _AUTHOR.items():
        known = git.ask(root, "config", "--get", f"user.{field.lower()}")
        for role in ("AUTHOR", "COMMITTER"):
            if not known and f"GIT_{role}_{field}" not in os.environ:
                variables[f"GIT_{role}_{field}"] = own
    return variables
