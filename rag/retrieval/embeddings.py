"""The embed stage's output: chunk ids, their vectors, and what both were made with.

ids.parquet       chunk_id as an unsigned number of 64 bits, in the order of the matrix
vectors.npy       float32, shape (N, D), unit length; read as a memory map
embeddings.json   the fingerprint of these vectors, its parts, and a few canary vectors

Both tables are written and read in blocks: no step holds the matrix in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rag.errors import IndexMismatchError
from rag.records import read_table, sorted_json
from rag.retrieval.encoder import FloatMatrix

IdArray = npt.NDArray[np.uint64]

IDS, VECTORS, FACTS = "ids.parquet", "vectors.npy", "embeddings.json"
#: Vectors kept in the facts, evenly spaced, for whoever opens an index without the matrix.
CANARIES = 4
#: A part of every fingerprint: raise it when the files' meaning changes.
FORMAT = 2
_BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class EmbeddingFacts:
    """What names a set of vectors; small, so a release always carries it."""

    fingerprint: str
    encoder: str
    """The passage fingerprint of the encoder."""
    count: int
    dimension: int
    canaries: Mapping[str, Sequence[float]]
    """Chunk id -> its vector, exactly."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors (N, D) and chunk ids (N,), which are `int(chunk_id, 16)`, in the same order."""

    facts: EmbeddingFacts
    ids: IdArray
    vectors: FloatMatrix

    def blocks(self, rows: int = _BLOCK_ROWS) -> Iterator[tuple[IdArray, FloatMatrix]]:
        """Ids (B,) and vectors (B, D), at most `rows` at a time."""
        for start in range(0, len(self.ids), rows):
            yield self.ids[start : start + rows], self.vectors[start : start + rows]


def to_number(chunk_id: str) -> int:
    """A chunk id as it stands in `Embeddings.ids`."""
    return int(chunk_id, 16)


def to_chunk_id(number: int | np.uint64) -> str:
    """The chunk id that a number in `Embeddings.ids` stands for."""
    return f"{int(number):016x}"


def make_embeddings(ids: Sequence[str], vectors: FloatMatrix, encoder: str) -> Embeddings:
    """Joins chunk ids with their vectors (N, D); `encoder` is its passage fingerprint."""
    numbers = np.array([to_number(chunk_id) for chunk_id in ids], dtype=np.uint64)
    return Embeddings(make_facts(numbers, vectors, encoder), numbers, vectors)


def make_facts(ids: IdArray, vectors: FloatMatrix, encoder: str) -> EmbeddingFacts:
    """The facts of a matrix (N, D) that is in memory."""
    canaries = {to_chunk_id(ids[row]): vectors[row].tolist() for row in _canary_rows(len(ids))}
    return _facts(ids, vectors.shape[1], encoder, canaries)


def write_embeddings(embeddings: Embeddings, folder: Path) -> None:
    """Writes embeddings that are in memory already, or another folder's."""
    blocks = (vectors for _, vectors in embeddings.blocks())
    facts = embeddings.facts
    stream_embeddings(folder, embeddings.ids, blocks, facts.dimension, facts.encoder)


def stream_embeddings(
    folder: Path, ids: IdArray, blocks: Iterable[FloatMatrix], dimension: int, encoder: str
) -> EmbeddingFacts:
    """Writes vectors block by block, in the order of `ids`; equal input gives equal bytes.

    The facts are written last: a folder without them is unfinished and is refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).unlink(missing_ok=True)
    _write_ids(folder / IDS, ids)
    canaries: dict[str, list[float]] = {}
    canary_rows = _canary_rows(len(ids))
    written = 0
    with (folder / VECTORS).open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(ids), dimension)}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
            for row in canary_rows:
                if written <= row < written + len(block):
                    canaries[to_chunk_id(ids[row])] = block[row - written].tolist()
            written += len(block)
    if written != len(ids):
        raise ValueError(f"{written} vectors for {len(ids)} ids")
    facts = _facts(ids, dimension, encoder, canaries)
    text = json.dumps(asdict(facts), indent=2) + "\n"
    (folder / FACTS).write_text(text, encoding="utf-8")
    return facts


def read_facts(folder: Path) -> EmbeddingFacts:
    """What `folder` holds, without reading ids or vectors; raises IndexMismatchError."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return EmbeddingFacts(**facts)
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(folder, error) from error


def read_embeddings(folder: Path) -> Embeddings:
    """Reads what was written; the matrix stays on disk until it is touched.

    Raises IndexMismatchError where a file is missing, cut short or does not fit the others.
    """
    facts = read_facts(folder)
    try:
        column = read_table(folder / IDS).column("chunk_id").combine_chunks()
        ids = column.to_numpy(zero_copy_only=False).astype(np.uint64, copy=False)
        # numpy cannot map an array without a byte
        vectors = np.load(folder / VECTORS, mmap_mode="r" if facts.count else None)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(folder, error) from error
    expected = (facts.count, facts.dimension)
    if vectors.shape != expected or len(ids) != facts.count:
        raise IndexMismatchError(
            f"{folder}: {len(ids)} ids and vectors of shape {vectors.shape}, expected {expected}; "
            "run: dvc repro --force embed"
        )
    if _fingerprint(facts.encoder, ids) != facts.fingerprint:
        raise IndexMismatchError(
            f"{folder}: the ids are not those of fingerprint {facts.fingerprint[:16]}; "
            "run: dvc repro --force embed"
        )
    return Embeddings(facts, ids, vectors)


def _facts(
    ids: IdArray, dimension: int, encoder: str, canaries: Mapping[str, Sequence[float]]
) -> EmbeddingFacts:
    return EmbeddingFacts(_fingerprint(encoder, ids), encoder, len(ids), int(dimension), canaries)


def _fingerprint(encoder: str, ids: IdArray) -> str:
    """A chunk id is the hash of its content, so the ids in order name the whole corpus."""
    corpus = hashlib.sha256()
    for start in range(0, len(ids), _BLOCK_ROWS):
        corpus.update(ids[start : start + _BLOCK_ROWS].astype(">u8").tobytes())
    parts = {"encoder": encoder, "corpus": corpus.hexdigest(), "format": FORMAT}
    return hashlib.sha256(sorted_json(parts).encode()).hexdigest()


def _canary_rows(count: int) -> list[int]:
    step = max(1, count // CANARIES)
    return list(range(0, count, step))[:CANARIES]


def _write_ids(path: Path, ids: IdArray) -> None:
    schema = pa.schema([("chunk_id", pa.uint64())])
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        for start in range(0, len(ids), _BLOCK_ROWS):
            column = pa.array(ids[start : start + _BLOCK_ROWS])
            writer.write_table(pa.Table.from_arrays([column], schema=schema))


def _unreadable(folder: Path, error: Exception) -> IndexMismatchError:
    reason = " ".join(str(error).split())
    return IndexMismatchError(
        f"{folder}: embeddings cannot be read ({reason}); run: dvc repro --force embed"
    )
