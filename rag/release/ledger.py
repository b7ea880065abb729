"""The ledger of decisions: append-only JSON lines, each row chained to the one before by its hash.

The ledger is the history that the registry's alias does not keep: who was champion when, and why.
A row that is changed, removed or moved breaks the chain, and reading says at which row.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import ReleaseError
from rag.records import sorted_json

FIRST_HASH = "0" * 64
_OWN_KEYS = ("sequence", "previous_hash", "hash")


def append(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a row and returns it with `sequence` (from 1), `previous_hash` and `hash`.

    The row is on disk when this returns. Times come from the caller. A line that a crash left
    without its end is no row yet: it is cut off before the new one is written.
    """
    taken = sorted(set(row) & set(_OWN_KEYS))
    if taken:
        raise ReleaseError(f"a ledger row may not bring its own {', '.join(taken)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "rb+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two writers would chain to the same row
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        rows = _verified(whole, path)
        if len(whole) < len(content):
            file.truncate(len(whole))
        chained = dict(row)
        chained["sequence"] = len(rows) + 1
        chained["previous_hash"] = rows[-1]["hash"] if rows else FIRST_HASH
        try:
            chained["hash"] = _row_hash(chained)
        except (TypeError, ValueError) as error:
            raise ReleaseError(f"a ledger row must be plain JSON without NaN: {error}") from None
        file.write(sorted_json(chained).encode() + b"\n")
        os.fsync(file.fileno())
    if is_new:
        _sync_folder(path.parent)
    return chained


def read(path: Path) -> list[dict[str, Any]]:
    """Every row, oldest first; ReleaseError names the first row that breaks the chain.

    A last line without its end is a row that was never finished, and is left out.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    return _verified(content[: content.rfind(b"\n") + 1], path)


def _verified(content: bytes, path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    previous = FIRST_HASH
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}: row {number}"
        try:
            row = json.loads(line)
        except ValueError:
            raise ReleaseError(f"{where} is not JSON: the ledger was altered; {_WAY_OUT}") from None
        if not isinstance(row, dict) or row.get("sequence") != number:
            raise ReleaseError(f"{where} is out of sequence: a row is missing; {_WAY_OUT}")
        if row.get("previous_hash") != previous:
            raise ReleaseError(f"{where} does not follow the row before it; {_WAY_OUT}")
        if row.get("hash") != _row_hash(row):
            raise ReleaseError(f"{where} does not match its hash: it was altered; {_WAY_OUT}")
        previous = row["hash"]
        rows.append(row)
    return rows


_WAY_OUT = "restore the file from a backup"


def _row_hash(row: Mapping[str, Any]) -> str:
    """SHA-256 of the row without its own hash, as sorted JSON."""
    content = {key: value for key, value in row.items() if key != "hash"}
    json.dumps(content, allow_nan=False)
    return hashlib.sha256(sorted_json(content).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    """A new file survives a power cut only when its folder is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
