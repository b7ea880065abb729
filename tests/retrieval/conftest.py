"""The bundled encoder, loaded once, and five chunks small enough to work out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.params import RetrieverParams
from rag.records import Chunk
from rag.retrieval.embeddings import Embeddings, make_embeddings
from rag.retrieval.encoder import Encoder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted weights would be kept."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="session")
def encoder(cache: Path) -> Encoder:
    """MiniLM as the params name it by default; its weights are read once for all tests."""
    return Encoder(RetrieverParams(), cache, device="cpu")


@pytest.fixture(scope="session")
def chunks() -> list[Chunk]:
    texts = (
        "petrel petrel ferry",
        "fulmar ferry",
        "gannet ferry timetable",
        "gull kiosk",
        "dog kennel",
    )
    return [
        Chunk(f"{number:016x}", f"d{number}", 0, text, len(text.split()))
        for number, text in enumerate(texts, start=1)
    ]


@pytest.fixture(scope="session")
def embeddings(chunks: list[Chunk]) -> Embeddings:
    """Unit vectors in the plane, chunk i at i · 20 degrees: their order by any query is plain."""
    angles = np.radians(20.0 * np.arange(1, len(chunks) + 1))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return make_embeddings([chunk.chunk_id for chunk in chunks], vectors, "an encoder")
