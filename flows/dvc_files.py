"""Files as DVC names them: MD5 of a file and of a folder, and every path in a dvc.lock.

DVC's lock has one hash for a whole folder; what is recorded here names the files in it, so that a
difference can be told by file, also when the cache has lost the folder's listing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rag.errors import RagError

#: Files in a stage's folder that are no part of it; .dvcignore says the same.
_COMPILED = ("__pycache__", ".pyc")


@dataclass(frozen=True)
class FileFacts:
    """MD5 of a file's bytes, and its size in bytes."""

    md5: str
    size: int


@dataclass(frozen=True)
class StageLock:
    """What dvc.lock says of a stage: path to MD5 of each dependency and output.

    The MD5 of a folder ends with `.dir`.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def read_lock(text: str) -> list[StageLock]:
    """The stages of a dvc.lock, in its order; RagError where the text is none."""
    try:
        stages = yaml.safe_load(text)["stages"]
        return [
            StageLock(name, _hashes(stage.get("deps", ())), _hashes(stage.get("outs", ())))
            for name, stage in stages.items()
        ]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise RagError(f"dvc.lock cannot be read: {error!r}") from None


def listing(root: Path, path: str) -> dict[str, FileFacts]:
    """Every file at or below a path, named relative to `root`; nothing where nothing is there."""
    place = root / path
    if place.is_file():
        return {path: _facts(place)}
    return {file.relative_to(root).as_posix(): _facts(file) for file in _files_below(place)}


def plain(files: Mapping[str, FileFacts]) -> dict[str, dict[str, Any]]:
    """`{path: {"md5": ..., "size": ...}}`, for JSON."""
    return {name: asdict(facts) for name, facts in sorted(files.items())}


def _hashes(entries: Any) -> dict[str, str]:
    return {str(entry["path"]): str(entry.get("md5", "")) for entry in entries}


def _files_below(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not any(part.endswith(_COMPILED) for part in file.parts):
            yield file


def _facts(path: Path) -> FileFacts:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return FileFacts(digest.hexdigest(), path.stat().st_size)
