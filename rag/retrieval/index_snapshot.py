"""Snapshots: a sealed index as one file, and back.

The file is a compressed tar archive. Its first member is a manifest with the build plan, and size
and SHA-256 of every other member, so a file that was cut, altered or made from other vectors is
refused before anything is put in place.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rag.errors import IndexMismatchError
from rag.params import IndexParams
from rag.retrieval.index import (
    INDEX_FORMAT,
    NAME_DIGITS,
    REBUILD,
    BuildPlan,
    build_plan,
    open_index,
)
from rag.retrieval.index_check import check_index
from rag.retrieval.index_edge import EdgeIndex
from rag.retrieval.index_seal import SEAL, BuildLock, file_bytes

if TYPE_CHECKING:
    from rag.retrieval.embeddings import EmbeddingFacts

_MANIFEST = "manifest.json"
_MANIFEST_LIMIT = 10_000_000
_BLOCK_BYTES = 1 << 20


def export_index(params: IndexParams, folder: Path, facts: EmbeddingFacts, file: Path) -> int:
    """Writes the sealed index to `file`, whole or not at all; returns its bytes.

    Raises IndexMismatchError for an index that is missing, partial or foreign.
    """
    plan = build_plan(params, facts)
    index = open_index(params, folder, facts)
    index.close()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.tmp")
    with _contents(params, folder, plan) as source:
        names = [SEAL] if (source / SEAL).is_file() else []
        names += list(file_bytes(source))
        manifest = {
            "format": INDEX_FORMAT,
            "kind": params.kind,
            "plan": plan.to_json(),
            "files": {name: _facts(source / name) for name in names},
        }
        text = json.dumps(manifest, indent=1).encode()
        # The lightest compression: a small index is mostly pages that are still empty.
        with tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
            head = tarfile.TarInfo(_MANIFEST)
            head.size = len(text)
            archive.addfile(head, BytesIO(text))
            for name in names:
                archive.add(source / name, arcname=name, recursive=False)
    temporary.replace(file)
    return file.stat().st_size


def import_index(params: IndexParams, folder: Path, facts: EmbeddingFacts, file: Path) -> str:
    """Puts the index that `file` holds in its place and returns its name.

    Raises IndexMismatchError, and changes nothing, for a file that is no snapshot, is cut or
    altered, or was made from other vectors or in another way than `params` say.
    """
    plan = build_plan(params, facts)
    with tempfile.TemporaryDirectory(
        prefix=f"{plan.name}.", suffix=".import", dir=_made(folder)
    ) as name:
        _extract(file, params, plan, Path(name) / "index")
        if params.kind == "server":
            from rag.retrieval.index_server_snapshot import upload_snapshot

            upload_snapshot(params, plan.name, Path(name) / "index")
            open_index(params, folder, facts).close()
        else:
            _put_in_place(Path(name) / "index", folder / plan.name, params, facts, plan)
    return plan.name


@contextmanager
def _contents(params: IndexParams, folder: Path, plan: BuildPlan) -> Iterator[Path]:
    """A folder with the files of the sealed index."""
    if params.kind == "edge":
        yield folder / plan.name
        return
    from rag.retrieval.index_server_snapshot import download_snapshot

    with tempfile.TemporaryDirectory(dir=_made(folder)) as name:
        download_snapshot(params, plan.name, Path(name))
        yield Path(name)


def _extract(file: Path, params: IndexParams, plan: BuildPlan, target: Path) -> None:
    target.mkdir()
    try:
        with tarfile.open(file, "r:*") as archive:
            manifest = _read_manifest(archive)
            _check_manifest(file, manifest, params, plan)
            left = dict(manifest["files"])
            for member in archive:
                if member.name == _MANIFEST:
                    continue
                expected = left.pop(member.name, None)
                content = archive.extractfile(member)
                if expected is None or content is None or not _is_plain(member.name):
                    raise ValueError(f"unexpected member {member.name!r}")
                path = target / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    found = _copy(content, out)
                if found != expected:
                    raise ValueError(f"{member.name} differs from the manifest")
        if left:
            raise ValueError(f"{len(left)} files are missing")
    except (
        OSError,
        EOFError,
        zlib.error,
        tarfile.TarError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise IndexMismatchError(
            f"{file} is no whole snapshot of an index ({reason}); "
            f"export it again, or run: {REBUILD}"
        ) from error


def _read_manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    head = archive.next()
    content = archive.extractfile(head) if head is not None else None
    if head is None or head.name != _MANIFEST or content is None:
        raise ValueError("no manifest")
    manifest: dict[str, Any] = json.loads(content.read(_MANIFEST_LIMIT))
    return manifest


def _check_manifest(
    file: Path, manifest: dict[str, Any], params: IndexParams, plan: BuildPlan
) -> None:
    found = (manifest["kind"], manifest["plan"])
    if found != (params.kind, plan.to_json()):
        held = manifest["plan"]
        raise IndexMismatchError(
            f"{file} holds the vectors {str(held.get('fingerprint'))[:NAME_DIGITS]} "
            f"(kind {manifest['kind']}, built {held.get('how')}), expected "
            f"{plan.fingerprint[:NAME_DIGITS]} (kind {params.kind}, {dict(plan.how)}); "
            f"run: {REBUILD}"
        )


def _put_in_place(
    source: Path, place: Path, params: IndexParams, facts: EmbeddingFacts, plan: BuildPlan
) -> None:
    checked = EdgeIndex(source, params)
    try:
        seal = checked.sealed()
        if seal is None or not seal.is_of(plan):
            raise IndexMismatchError(f"the snapshot has no seal that fits; run: {REBUILD}")
        check_index(checked, facts)
    finally:
        checked.close()
    lock = BuildLock(place.with_name(f"{place.name}.lock"))
    lock.hold()
    try:
        EdgeIndex(place, params).drop()
        source.rename(place)
    finally:
        lock.release()


def _is_plain(name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return _copy(file, None)


def _copy(source: IO[bytes], target: IO[bytes] | None) -> dict[str, Any]:
    """Size and hash of what was read, and written where there is a target."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
        if target is not None:
            target.write(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
