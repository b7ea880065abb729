"""Vectors of texts that were encoded before, kept by content: what is known is never encoded again.

    vectors/<passage fingerprint, 16 digits>/
        store.json          the encoder, the dimension, and which generation of files counts
        <generation>.rows   float32 rows (N, D), appended
        <generation>.keys   N records: the hash of the text, and a checksum of hash and row

A store belongs to one encoder, so a key is the hash of the text alone. Rows are written and synced
first, keys after them: a row counts from the moment its whole key is on disk, whenever the process
is killed. What is behind the last whole key is cut off by the next writer. A row that does not fit
its checksum is unknown, never a wrong vector.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.errors import BusyError, RagError
from rag.retrieval.encoder import FloatMatrix

Keys = npt.NDArray[np.bytes_]
"""(N,) of 16 bytes each."""
Positions = npt.NDArray[np.int64]

KEY_BYTES = 16
_KEY = np.dtype(f"S{KEY_BYTES}")
_RECORD = np.dtype([("key", _KEY), ("check", "<u4")])
_FACTS = "store.json"
_FORMAT = 1
_KEPT_STORES = 2
_LOCK_SECONDS = 10.0
_BLOCK_ROWS = 16_384


def text_key(text: str) -> bytes:
    """The first 16 bytes of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


def as_keys(keys: Sequence[bytes]) -> Keys:
    """Keys as an array (N,)."""
    return np.array(keys, dtype=_KEY)


class VectorStore:
    """The store of one encoder, open for writing by this process alone; use it in a `with` block.

    Raises BusyError where another process has had it open for ten seconds and still has.
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        from filelock import FileLock

        self.folder = folder / encoder[:16]
        self.encoder = encoder
        self.dimension: int | None = None
        """D; None for a store that has never held a row."""
        self._generation = 0
        self._records = np.empty(0, dtype=_RECORD)
        self._appended: list[npt.NDArray[np.void]] = []
        self._lock = FileLock(f"{self.folder}.lock")

    def __enter__(self) -> VectorStore:
        from filelock import Timeout

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            raise BusyError(
                f"{self.folder}: another process is encoding into it; wait until it has ended"
            ) from None
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __len__(self) -> int:
        return len(self._all_records())

    def find(self, keys: Keys) -> Positions:
        """The row of each key, shape (N,); -1 where it is not known."""
        positions = np.full(len(keys), -1, dtype=np.int64)
        known = self._all_records()["key"]
        if not len(known) or not len(keys):
            return positions
        order = np.argsort(known, kind="stable")
        ordered = known[order]
        # The last of equal keys: what was encoded again took the place of a damaged row.
        place = np.searchsorted(ordered, keys, side="right") - 1
        hit = (place >= 0) & (ordered[place] == keys)
        positions[hit] = order[place[hit]]
        return positions

    def damaged(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """Whether the row at each position differs from what was written there, shape (N,)."""
        records = self._all_records()
        bad: list[int] = []
        unique = np.unique(positions)
        for start in range(0, len(unique), _BLOCK_ROWS):
            rows = unique[start : start + _BLOCK_ROWS]
            checks = _records(records["key"][rows], self.rows(rows))["check"]
            bad += rows[checks != records["check"][rows]].tolist()
        return np.isin(positions, bad)

    def rows(self, positions: Positions) -> FloatMatrix:
        """The rows at these positions, shape (N, D), in their order."""
        mapped = self._map()
        order = np.argsort(positions, kind="stable")
        found = np.empty((len(positions), mapped.shape[1]), dtype=np.float32)
        found[order] = mapped[positions[order]]
        return found

    def append(self, keys: Keys, vectors: FloatMatrix) -> None:
        """Commits vectors (N, D): once this returns, a kill does not lose them."""
        if not np.isfinite(vectors).all():
            raise RagError("the encoder gave a vector that is not finite; try precision float32")
        if self.dimension is None:
            self.dimension = vectors.shape[1]
            self._write_facts()
        if vectors.shape != (len(keys), self.dimension):
            raise ValueError(f"{len(keys)} keys, vectors of shape {vectors.shape}")
        records = _records(keys, vectors)
        _append(self._path("rows"), np.ascontiguousarray(vectors, dtype="<f4"))
        _append(self._path("keys"), records)
        self._appended.append(records)

    def compact(self, used: Keys) -> bool:
        """Keeps only the rows of `used` where the store holds more than twice as many rows.

        The new files are complete before `store.json` names them, in one rename.
        """
        positions = np.unique(self.find(np.unique(used)))
        positions = positions[positions >= 0]
        if len(self) <= 2 * max(1, len(positions)):
            return False
        old, self._generation = self._generation, self._generation + 1
        for kind in ("rows", "keys"):
            self._path(kind).unlink(missing_ok=True)
        for start in range(0, len(positions), _BLOCK_ROWS):
            part = positions[start : start + _BLOCK_ROWS]
            _append(self._path("rows"), np.ascontiguousarray(self._map(old)[part]))
            _append(self._path("keys"), self._all_records()[part])
        self._write_facts()
        self._open()
        return True

    def prune_others(self) -> list[str]:
        """Removes the stores of other encoders but the newest two; returns their names."""
        removed = []
        others = [
            path
            for path in self.folder.parent.iterdir()
            if path.is_dir() and path != self.folder and not path.suffix
        ]
        others.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        for path in others[_KEPT_STORES:]:
            if _remove_unused(path):
                removed.append(path.name)
        for path in self.folder.parent.glob("*.removed"):
            shutil.rmtree(path, ignore_errors=True)
        return removed

    def _open(self) -> None:
        """Reads the keys and cuts off what no key, or only a part of one, stands for."""
        self._appended = []
        facts = _read_facts(self.folder)
        if facts.get("encoder") != self.encoder or facts.get("format") != _FORMAT:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            self.dimension, self._generation = None, 0
            self._records = np.empty(0, dtype=_RECORD)
            return
        self.dimension, self._generation = facts["dimension"], facts["generation"]
        rows, keys = self._path("rows"), self._path("keys")
        for path in self.folder.iterdir():
            if path.name not in (_FACTS, rows.name, keys.name):
                path.unlink()
        for path in (rows, keys):
            path.touch()
        count = min(rows.stat().st_size // self._row_bytes, keys.stat().st_size // _RECORD.itemsize)
        os.truncate(rows, count * self._row_bytes)
        os.truncate(keys, count * _RECORD.itemsize)
        self._records = np.fromfile(keys, dtype=_RECORD)
        os.utime(self.folder)  # `prune_others` keeps what was used last

    @property
    def _row_bytes(self) -> int:
        return 4 * (self.dimension or 0)

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self._generation}.{kind}"

    def _map(self, generation: int | None = None) -> FloatMatrix:
        """All rows, memory-mapped: pages that were read count as resident until the map is gone."""
        if not len(self):
            return np.empty((0, self.dimension or 0), dtype=np.float32)
        number = self._generation if generation is None else generation
        path = self.folder / f"{number}.rows"
        return np.memmap(path, dtype="<f4", mode="r", shape=(len(self), self.dimension or 0))

    def _all_records(self) -> npt.NDArray[np.void]:
        if self._appended:
            self._records = np.concatenate([self._records, *self._appended])
            self._appended = []
        return self._records

    def _write_facts(self) -> None:
        facts = {
            "format": _FORMAT,
            "encoder": self.encoder,
            "dimension": self.dimension,
            "generation": self._generation,
        }
        temporary = self.folder / f"{_FACTS}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(facts, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / _FACTS)


def _records(keys: Keys, vectors: FloatMatrix) -> npt.NDArray[np.void]:
    records = np.empty(len(keys), dtype=_RECORD)
    records["key"] = keys
    records["check"] = [
        _checksum(bytes(key), vector) for key, vector in zip(keys, vectors, strict=True)
    ]
    return records


def _checksum(key: bytes, vector: FloatMatrix) -> int:
    whole = key.ljust(KEY_BYTES, b"\0")  # numpy drops zero bytes at the end of a key
    return zlib.crc32(np.ascontiguousarray(vector, dtype="<f4").data, zlib.crc32(whole))


def _append(path: Path, array: npt.NDArray[np.generic]) -> None:
    with path.open("ab") as file:
        file.write(array.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _read_facts(folder: Path) -> dict[str, Any]:
    """What `store.json` says; nothing where it is missing, which no kill can do to a full store."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _remove_unused(folder: Path) -> bool:
    """Moves a store aside first: a kill leaves it whole or out of sight, never half there."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(f"{folder}.lock", timeout=0):
            folder.rename(folder.with_suffix(".removed"))
    except (Timeout, OSError):
        return False
    return True
