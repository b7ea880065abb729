"""JSON lines that several processes append to and that never outgrow a size.

The file is renamed to `NAME.old` when it has half the size, in the place of the one before; so at
least the newest half of the size is always there. A line that a crash cut short is left out.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def append(path: Path, rows: Iterable[Mapping[str, Any]], limit_bytes: int) -> None:
    """Adds rows as one write; what is older than the newest `limit_bytes` goes."""
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
    if not text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, fcntl.LOCK_EX):
        size = path.stat().st_size if path.exists() else 0
        if size and 2 * (size + len(text)) > limit_bytes:
            os.replace(path, _older(path))
        with path.open("ab") as file:
            if file.tell() and not _ends_whole(path):
                file.write(b"\n")
            file.write(text)


def read(path: Path) -> list[dict[str, Any]]:
    """Every row, oldest first."""
    if not path.parent.is_dir():
        return []
    with _locked(path, fcntl.LOCK_SH):
        parts = [part.read_bytes() for part in (_older(path), path) if part.exists()]
    lines = [line for part in parts for line in part.split(b"\n")]
    return [row for line in lines if (row := _parsed(line))]


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with (path.parent / f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, kind)
        yield


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
