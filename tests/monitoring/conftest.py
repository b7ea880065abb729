"""Embeddings with the structure of real ones: unit vectors around topics of unequal frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

FloatMatrix = npt.NDArray[np.float32]


@dataclass
class Topics:
    """A source of queries: topics (T, D) with their probabilities; texts about one are alike."""

    centres: FloatMatrix
    shares: npt.NDArray[np.float64]
    generator: np.random.Generator

    def draw(self, count: int) -> FloatMatrix:
        """Unit vectors (count, D); two of one topic have a cosine of about 0.5."""
        dimension = self.centres.shape[1]
        topics = self.generator.choice(len(self.centres), size=count, p=self.shares)
        noise = self.generator.normal(size=(count, dimension)) / np.sqrt(dimension)
        return unit(self.centres[topics] + noise)

    def swapped(self) -> Topics:
        """The same topics, asked with the shares of others: what was rare is common."""
        return Topics(self.centres, self.shares[::-1].copy(), self.generator)


def unit(vectors: npt.NDArray[np.floating]) -> FloatMatrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


@pytest.fixture
def topics() -> Topics:
    generator = np.random.default_rng(20)
    shares = np.sort(generator.dirichlet(np.ones(40)))
    return Topics(unit(generator.normal(size=(40, 48))), shares, generator)
