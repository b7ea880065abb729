"""What lies in a watched place: a folder, or a prefix that fsspec can list (`s3://bucket/data`)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rag.errors import InputError

#: What stores say of a file's content, the surest first.
_IDENTITIES = ("ETag", "etag", "md5Hash", "content_md5", "crc32c")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")


@dataclass(frozen=True)
class Content:
    """`digest` names the content; `newest` is the latest change in seconds since the epoch."""

    digest: str
    files: int
    newest: float


def content_of(place: str, root: Path) -> Content:
    """The content of a folder (relative to `root`) by its bytes, or of a prefix by what its store
    says of them. InputError where there is no such place or its protocol is not installed.
    """
    if "://" in place:
        return _remote(place)
    folder = root / place
    if not folder.is_dir():
        raise InputError(
            f"watch.incoming: {place} is no folder",
            hint="make it, or name another place in params.yaml",
        )
    paths = sorted(path for path in folder.rglob("*") if _counts(path, folder))
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    newest = max((path.stat().st_mtime for path in paths), default=0.0)
    return Content(digest.hexdigest(), len(paths), newest)


def fetch(place: str, target: Path) -> None:
    """Copies every file below a prefix into the folder `target`, in the same layout."""
    system, prefix = _file_system(place)
    for name in system.find(prefix):
        own = target / os.path.relpath(name, prefix)
        own.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(name, str(own))


def _counts(path: Path, folder: Path) -> bool:
    return path.is_file() and not any(
        part.startswith(".") for part in path.relative_to(folder).parts
    )


def _remote(place: str) -> Content:
    system, prefix = _file_system(place)
    found = system.find(prefix, detail=True)
    digest = hashlib.sha256()
    times = [0.0]
    for name, facts in sorted(found.items()):
        identity = next((facts[key] for key in _IDENTITIES if facts.get(key)), None)
        times.append(_changed(facts))
        known = identity or times[-1]
        digest.update(f"{os.path.relpath(name, prefix)}\0{facts.get('size')}\0{known}\n".encode())
    return Content(digest.hexdigest(), len(found), max(times))


def _changed(facts: dict[str, Any]) -> float:
    value = next((facts[key] for key in _TIMES if facts.get(key)), 0.0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime) else float(value)


def _file_system(place: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, prefix = url_to_fs(place)
        system.invalidate_cache()
        is_there = system.exists(prefix)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"watch.incoming: {place.partition('://')[0]}:// cannot be read: {error}",
            hint='for S3: pip install "dvc[s3]"; other stores likewise',
        ) from None
    if not is_there:
        raise InputError(f"watch.incoming: {place} holds nothing or cannot be seen from here")
    return system, str(prefix).rstrip("/")
