"""The key of a training stage's checkpoint: another key, another training."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.records import sorted_json
from rag.weights import file_sha256


def stage_key(settings: Mapping[str, Any], inputs: Sequence[Path]) -> str:
    """16 hexadecimal digits over settings, all code of this package and the stage's inputs."""
    package = Path(__file__).parent.parent
    parts = {
        **settings,
        "code": {
            path.relative_to(package).as_posix(): file_sha256(path)
            for path in sorted(package.rglob("*.py"))
        },
        "inputs": {path.name: file_sha256(path) for path in inputs},
    }
    return hashlib.sha256(sorted_json(parts).encode()).hexdigest()[:16]


def drop_checkpoints(folder: Path, *, kept: Path | None, prefix: str = "") -> None:
    """Removes checkpoints whose name begins with `prefix`, all but `kept`.

    One that is not gone on from is of no more use: a finished stage that is forced trains anew.
    """
    if folder.is_dir():
        for checkpoint in folder.iterdir():
            if checkpoint != kept and checkpoint.name.startswith(prefix):
                shutil.rmtree(checkpoint)
