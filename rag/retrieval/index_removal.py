"""The indexes of this machine, what builds left beside them, and the removal of both."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from rag.artifacts import folder_bytes
from rag.params import IndexParams
from rag.retrieval.index import NAME_DIGITS
from rag.retrieval.index_edge import EdgeIndex
from rag.retrieval.index_seal import BuildLock

_NAME = re.compile(rf"[0-9a-f]{{{NAME_DIGITS}}}")
#: A build that a later one goes on with.
_UNFINISHED = ".tmp"


def local_indexes(folder: Path) -> dict[str, int]:
    """Name and bytes of every finished Edge index below `folder`."""
    return {
        path.name: folder_bytes(path)
        for path in sorted(folder.glob("*"))
        if path.is_dir() and _NAME.fullmatch(path.name)
    }


def leftovers(folder: Path, keep: Set[str]) -> dict[str, int]:
    """Folder and bytes of what killed processes left below `folder`: builds, imports, removals.

    A build of an index in `keep` is none: it is gone on with. Nor is what a live process holds.
    """
    found = {}
    for path in sorted(folder.glob("*.*")):
        name = path.name.partition(".")[0]
        resumable = path.suffix == _UNFINISHED and name in keep
        if path.is_dir() and _NAME.fullmatch(name) and not resumable:
            with _unless_built(folder, name) as is_free:
                if is_free:
                    found[path.name] = folder_bytes(path)
    return found


def remove_index(folder: Path, name: str) -> bool:
    """Removes a finished index, or what one of `leftovers` names; False while it is being built."""
    index, dot, _ = name.partition(".")
    if not _NAME.fullmatch(index) or "/" in name:
        raise ValueError(f"not the folder of an index: {name!r}")
    if not folder.is_dir():
        return True
    with _unless_built(folder, index) as is_free:
        if is_free and dot:
            shutil.rmtree(folder / name, ignore_errors=True)
        elif is_free:
            EdgeIndex(folder / name, IndexParams()).drop()
    return is_free


@contextmanager
def _unless_built(folder: Path, name: str) -> Iterator[bool]:
    """Whether no process builds the index; none begins to while the block runs."""
    lock = BuildLock(folder / f"{name}.lock")
    is_free = lock.try_to_hold()
    try:
        yield is_free
    finally:
        lock.release()
