"""An encoder without a model: a text's vector is drawn from a generator seeded by its hash."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.vector_store import text_key

DIMENSION = 6


class HashEncoder:
    """Counts what it is asked for in `encoded`, and writes it to `log` as well where it is given.

    `name` is part of the vectors, as weights would be.
    """

    def __init__(self, name: str = "a", *, log: Path | None = None, seconds: float = 0.0) -> None:
        self.passage_fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self.dimension = DIMENSION
        self.encoded: list[str] = []
        self._name = name
        self._log = log
        self._seconds = seconds

    def encode(
        self,
        texts: Sequence[str],
        side: str,
        *,
        batch_tokens: int,
        progress: Callable[[int], None] | None = None,
    ) -> FloatMatrix:
        assert side == "passage"
        assert batch_tokens > 0
        self.encoded += texts
        time.sleep(self._seconds)
        if self._log is not None:
            with self._log.open("a") as file:
                file.writelines(f"{text}\n" for text in texts)
        if progress is not None:
            progress(len(texts))
        return np.stack([vector_of(text, self._name) for text in texts])


def vector_of(text: str, name: str = "a") -> FloatMatrix:
    """The unit vector of a text, shape (D,)."""
    seed = int.from_bytes(text_key(name + text), "big")
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    unit: FloatMatrix = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit
