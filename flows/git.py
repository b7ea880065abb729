"""Git as a program of its own: asked for a fact, or told to do something."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from rag.errors import RagError


def ask(root: Path, *arguments: str) -> str:
    """What git prints, without the space around it; empty where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def run(
    root: Path,
    *arguments: str,
    text: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """The same for what has to succeed: RagError with git's own words where it fails.

    `text` is its standard input; `variables` are added to the environment.
    """
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        input=text,
        env={**os.environ, **(variables or {})},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().removeprefix("fatal: ")
        raise RagError(f"git {arguments[0]} failed: {said}")
    return done.stdout.strip()
