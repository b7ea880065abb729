"""The ledger of decisions: append-only JSON lines, each row chained to the one before by its hash.

The ledger is the history that the registry's alias does not keep: who was champion when, and why.
A row that is changed, removed or moved breaks the chain, and reading says at which row. What a
chain cannot show is that its last rows are gone; a file beside it, `ledger.head`, names the last
row that was written, and the flow writes the same to MLflow.

Rows of before the chain (without a hash) may stand at the beginning only: the first chained row is
tied to all their bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rag.errors import ReleaseError
from rag.records import sorted_json
from rag.release.torn_row import is_torn

FIRST_HASH = "0" * 64
_OWN_KEYS = ("sequence", "previous_hash", "hash")
_WAY_OUT = "restore the file from a backup"


def append(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a row and returns it with `sequence` (from 1), `previous_hash` and `hash`.

    The row is on disk when this returns. Times come from the caller. A torn last line is repaired
    first, as `repair` does it.
    """
    taken = sorted(set(row) & set(_OWN_KEYS))
    if taken:
        raise ReleaseError(f"a ledger row may not bring its own {', '.join(taken)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with _locked(path) as file:
        content = path.read_bytes()
        end, completed = _whole(content, path)
        whole = content[:end] + completed
        rows = _verified(whole, path)
        _check_head(path, rows, _named_head(path))
        previous = rows[-1]["hash"] if rows and "hash" in rows[-1] else _legacy_hash(whole)
        chained = {**row, "sequence": len(rows) + 1, "previous_hash": previous}
        try:
            chained["hash"] = _row_hash(chained)
        except (TypeError, ValueError) as error:
            raise ReleaseError(f"a ledger row must be plain JSON without NaN: {error}") from None
        file.truncate(end)
        file.write(completed + sorted_json(chained).encode() + b"\n")
        os.fsync(file.fileno())
        _write_head(path, chained)
    if is_new:
        _sync_folder(path.parent)
    return chained


def read(path: Path) -> list[dict[str, Any]]:
    """Every row, oldest first; ReleaseError names the first row that breaks the chain.

    A torn last line is a row that was never finished, and is left out; one that is no part of a row
    is an error.
    """
    named = _named_head(path)  # first: another process may append between the two
    content = path.read_bytes() if path.exists() else b""
    end, completed = _whole(content, path)
    rows = _verified(content[:end] + completed, path)
    _check_head(path, rows, named)
    return rows


def verify(path: Path) -> int:
    """How many rows there are; ReleaseError names the row that was altered, removed or moved."""
    return len(read(path))


def repair(path: Path) -> str | None:
    """Ends a last line that a crash left without its end; says what was done, None if nothing.

    A complete row that lacks only its line end gets one; the beginning of a row, which was never
    finished, is cut off. Any other text is not ours to remove: ReleaseError.
    """
    if not path.exists():
        return None
    with _locked(path) as file:
        content = path.read_bytes()
        end, completed = _whole(content, path)
        if end == len(content) and not completed:
            return None
        rows = _verified(content[:end] + completed, path)
        _check_head(path, rows, _named_head(path))
        if completed:
            file.write(b"\n")
        else:
            file.truncate(end)
        os.fsync(file.fileno())
    if completed:
        return f"{path}: row {len(rows)} was complete but for its line end"
    return f"{path}: a row that was never finished is cut off after row {len(rows)}"


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The open file while no other process has it: two writers would chain to the same row."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "rb+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _whole(content: bytes, path: Path) -> tuple[int, bytes]:
    """Where the finished rows end, and what must follow there: a complete row without its end."""
    end = content.rfind(b"\n") + 1
    tail = content[end:]
    if not tail:
        return end, b""
    try:
        json.loads(tail)
    except ValueError:
        if is_torn(tail):
            return end, b""
        number = content.count(b"\n") + 1
        raise ReleaseError(
            f"{path}: row {number} is no row and no beginning of one: the ledger was altered; "
            f"{_WAY_OUT}"
        ) from None
    return len(content), b"\n"


def _verified(content: bytes, path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    previous: str | None = None
    offset = 0
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        where = f"{path}: row {number}"
        row = _parsed(line, where)
        if previous is None and "hash" not in row and "previous_hash" not in row:
            rows.append(row)  # of before the chain
            offset += len(line) + 1
            continue
        expected = previous or _legacy_hash(content[:offset])
        if row.get("sequence") != number:
            raise ReleaseError(f"{where} is out of sequence: a row is missing; {_WAY_OUT}")
        if row.get("previous_hash") != expected:
            raise ReleaseError(f"{where} does not follow the row before it; {_WAY_OUT}")
        if row.get("hash") != _row_hash(row) or sorted_json(row).encode() != line:
            raise ReleaseError(f"{where} does not match its hash: it was altered; {_WAY_OUT}")
        previous = row["hash"]
        rows.append(row)
    return rows


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise ReleaseError(f"{where} is not JSON: the ledger was altered; {_WAY_OUT}") from None
    if not isinstance(row, dict):
        raise ReleaseError(f"{where} is not a row: the ledger was altered; {_WAY_OUT}")
    return row


def _row_hash(row: Mapping[str, Any]) -> str:
    """SHA-256 of the row without its own hash, as sorted JSON."""
    content = {key: value for key, value in row.items() if key != "hash"}
    json.dumps(content, allow_nan=False)
    return hashlib.sha256(sorted_json(content).encode()).hexdigest()


def _legacy_hash(content: bytes) -> str:
    """What the first chained row follows: rows of before the chain, byte for byte, or nothing."""
    return hashlib.sha256(content).hexdigest() if content else FIRST_HASH


def _head(path: Path) -> Path:
    return path.with_suffix(".head")


def _write_head(path: Path, row: Mapping[str, Any]) -> None:
    """Names the last row, once it is there: a crash between leaves the name of the one before."""
    head = _head(path)
    temporary = head.with_suffix(".head.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(f"{row['sequence']}:{row['hash']}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(head)


def _named_head(path: Path) -> str | None:
    """`sequence:hash` of the last row written; None of a ledger of before it was named."""
    try:
        return _head(path).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _check_head(path: Path, rows: list[dict[str, Any]], named: str | None) -> None:
    if named is not None:
        check_contains(path, rows, named, str(_head(path)))


def check_contains(path: Path, rows: list[dict[str, Any]], named: str, source: str) -> None:
    """ReleaseError unless `sequence:hash`, as `source` has it, is a row of the ledger."""
    sequence, _, digest = named.partition(":")
    row = rows[int(sequence) - 1] if sequence.isdigit() and 0 < int(sequence) <= len(rows) else {}
    if not row or row.get("hash") != digest:
        raise ReleaseError(
            f"{path}: row {sequence}, which {source} names as the last one written, is missing or "
            f"another: rows were removed; {_WAY_OUT}"
        )


def _sync_folder(folder: Path) -> None:
    """A new file survives a power cut only when its folder is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
