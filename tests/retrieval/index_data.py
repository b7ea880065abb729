"""Seeded chunks and vectors for the tests of the index, and the child process that is killed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.records import Chunk
from rag.retrieval.embeddings import Embeddings, make_embeddings
from rag.retrieval.encoder import FloatMatrix

WORDS = ("petrel", "fulmar", "gannet", "gull", "kiosk", "ferry", "timetable", "kennel", "fare")


def make_chunks(count: int) -> list[Chunk]:
    """Each chunk has three words of WORDS and a number of its own; two chunks a document."""
    rng = np.random.default_rng(3)
    picks = rng.integers(0, len(WORDS), size=(count, 3))
    return [
        Chunk(
            f"{17 * row + 1:016x}",
            f"d{row // 2}",
            row % 2,
            " ".join([*(WORDS[pick] for pick in picks[row]), str(row)]),
            4,
            title=f"Title {row // 2}",
            source=f"{'ab'[row % 2]}.md",
            language=("en", "sv", "zh")[row % 3],
            metadata={"year": 1960 + row % 5, "tags": ["even" if row % 2 == 0 else "odd"]},
        )
        for row in range(count)
    ]


def make_vectors(count: int, dimension: int = 16) -> FloatMatrix:
    """Unit vectors around forty directions: like texts on forty subjects."""
    rng = np.random.default_rng(4)
    subjects = rng.normal(size=(40, dimension))
    near = subjects[rng.integers(0, 40, size=count)] + 0.5 * rng.normal(size=(count, dimension))
    unit: FloatMatrix = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return unit


def make_index_data(count: int, dimension: int = 16) -> tuple[list[Chunk], Embeddings]:
    chunks = make_chunks(count)
    ids = [chunk.chunk_id for chunk in chunks]
    return chunks, make_embeddings(ids, make_vectors(count, dimension), "an encoder")


def in_batches(chunks: Sequence[Chunk], size: int = 100) -> list[Sequence[Chunk]]:
    return [chunks[start : start + size] for start in range(0, len(chunks), size)]
