"""The embed stage's output: chunk ids, their vectors, and what both were made with.

ids.parquet       chunk_id, in the order of the matrix
vectors.npy       float32, shape (N, D), unit length; read as a memory map
embeddings.json   fingerprint of the index that these vectors give, and its parts
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rag.errors import IndexMismatchError
from rag.records import Chunk, sorted_json
from rag.retrieval.encoder import FloatMatrix

IDS, VECTORS, FACTS = "ids.parquet", "vectors.npy", "embeddings.json"


@dataclass(frozen=True)
class Embeddings:
    """Vectors (N, D) of the chunks `ids`; `fingerprint` names the index built from them."""

    ids: tuple[str, ...]
    vectors: FloatMatrix
    encoder: str
    average_tokens: float
    fingerprint: str


def make_embeddings(chunks: Sequence[Chunk], vectors: FloatMatrix, encoder: str) -> Embeddings:
    """Joins chunks with their vectors, shape (N, D), and derives the fingerprint."""
    ids = tuple(chunk.chunk_id for chunk in chunks)
    average = round(sum(chunk.token_count for chunk in chunks) / len(chunks), 2)
    parts = {"encoder": encoder, "corpus": _corpus_hash(ids), "average_tokens": average}
    fingerprint = hashlib.sha256(sorted_json(parts).encode()).hexdigest()
    return Embeddings(ids, vectors, encoder, average, fingerprint)


def write_embeddings(embeddings: Embeddings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"chunk_id": list(embeddings.ids)})
    pq.write_table(table, folder / IDS, compression="zstd", store_schema=False)
    np.save(folder / VECTORS, embeddings.vectors)
    facts = {
        "fingerprint": embeddings.fingerprint,
        "encoder": embeddings.encoder,
        "average_tokens": embeddings.average_tokens,
        "count": len(embeddings.ids),
        "dimension": int(embeddings.vectors.shape[1]),
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def read_embeddings(folder: Path) -> Embeddings:
    """Reads what `write_embeddings` wrote; the matrix stays on disk until it is touched.

    Raises IndexMismatchError where a file is missing, cut short or does not fit the others.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        ids = tuple(pq.read_table(folder / IDS).column("chunk_id").to_pylist())
        vectors = np.load(folder / VECTORS, mmap_mode="r")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise IndexMismatchError(
            f"{folder}: embeddings cannot be read ({reason}); run: dvc repro --force embed"
        ) from error
    expected = (facts["count"], facts["dimension"])
    if vectors.shape != expected or len(ids) != facts["count"]:
        raise IndexMismatchError(
            f"{folder}: {len(ids)} ids and vectors of shape {vectors.shape}, expected {expected}; "
            "run: dvc repro --force embed"
        )
    return Embeddings(ids, vectors, facts["encoder"], facts["average_tokens"], facts["fingerprint"])


def _corpus_hash(ids: Sequence[str]) -> str:
    """A chunk id is the hash of its content, so the ids in order name the whole corpus."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
