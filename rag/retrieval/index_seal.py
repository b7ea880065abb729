"""The seal of an Edge index, written last, and the lock of the process that builds it."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rag.retrieval.index import Seal

SEAL = "sealed.json"


def write_seal(folder: Path, seal: Seal, *, leave_out: str) -> None:
    """Writes the seal with the size of every file of the folder but `leave_out`."""
    sizes = {name: size for name, size in file_bytes(folder).items() if name != leave_out}
    content = asdict(seal) | {"bytes": sizes}
    replace_file(folder / SEAL, json.dumps(content) + "\n")


def read_seal(folder: Path) -> Seal | None:
    """The seal; None where it, or a file that it names, is missing or cut short.

    The engine would panic on such a file, or find less.
    """
    try:
        content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        sizes = content.pop("bytes")
        seal = Seal(**content)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return seal


def file_bytes(folder: Path) -> dict[str, int]:
    """Relative path and size of every file below `folder` but the seal."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SEAL
    }


def replace_file(path: Path, text: str) -> None:
    """Writes a file whole or not at all, and for good."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class BuildLock:
    """A file that one process holds while it builds; the system lets go of a killed one's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def hold(self) -> None:
        """Waits until it is free."""
        while self._file is None:
            self._take(fcntl.LOCK_EX)

    def try_to_hold(self) -> bool:
        """Whether it was free, and is held now."""
        try:
            self._take(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self._file is not None

    def _take(self, how: int) -> None:
        file: Any = self._path.open("w")
        try:
            fcntl.flock(file, how)
            # Who held it before has removed the file: what was locked here is then no longer it.
            if os.stat(self._path).st_ino == os.fstat(file.fileno()).st_ino:
                self._file, file = file, None
        except FileNotFoundError:
            pass
        finally:
            if file is not None:
                file.close()

    def release(self) -> None:
        """Does nothing where it is not held."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
