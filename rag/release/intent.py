"""The intent of a switch: a file on disk before anything moves, gone when all is written down.

Of a switch that was killed it says where from, where to, and the ledger row that was to follow.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rag.artifacts import Artifacts
from rag.errors import ReleaseError

_FILE = "switch.json"


@dataclass(frozen=True)
class Switch:
    """An alias moves to `version` from `before` (None: from nowhere); `row` is for the ledger."""

    alias: str
    version: str
    before: str | None
    row: Mapping[str, Any]
    switch_id: str = field(default_factory=lambda: uuid.uuid4().hex)


def write_intent(artifacts: Artifacts, switch: Switch) -> None:
    """The file is whole and on disk when this returns."""
    path = artifacts.state / _FILE
    temporary = path.with_name(f"{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(switch), file, ensure_ascii=False, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def read_intent(artifacts: Artifacts) -> Switch | None:
    """The switch that was begun and not finished; None where there is none."""
    path = artifacts.state / _FILE
    try:
        return Switch(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ReleaseError(
            f"{path} cannot be read ({error}): it was altered; look at `ragloop releases`, "
            "then remove the file"
        ) from None


def drop_intent(artifacts: Artifacts) -> None:
    """Nothing is left to finish."""
    (artifacts.state / _FILE).unlink(missing_ok=True)
    _sync(artifacts.state)


def _sync(folder: Path) -> None:
    """Only with its folder on disk does a file stay made, or removed, after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
