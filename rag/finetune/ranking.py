"""Where the right passage stands among all of them: what early stopping and the report rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.retrieval.encoder import FloatMatrix

IntArray = npt.NDArray[np.int64]

_BLOCK_ROWS = 65_536
_CUTS = (1, 5, 20)


@dataclass(frozen=True)
class Ranking:
    """For each question the rank of its first relevant passage, from 1, and the row found first."""

    ranks: IntArray
    first: IntArray

    def metrics(self) -> dict[str, float]:
        """MRR and recall at 1, 5 and 20, in percent."""
        recall = {f"recall@{cut}": 100.0 * float((self.ranks <= cut).mean()) for cut in _CUTS}
        return {"mrr": 100.0 * float((1.0 / self.ranks).mean()), **recall}

    def distinct_share(self) -> float:
        """Distinct passages among those found first, over questions: low where all collapse."""
        return len(np.unique(self.first)) / len(self.first)


def rank_relevant(
    queries: FloatMatrix, passages: FloatMatrix, relevant: Sequence[Sequence[int]]
) -> Ranking:
    """Ranks by inner product of queries (Q, D) with passages (N, D).

    `relevant[i]` are the rows that answer question i, at least one. A passage as close as the
    relevant one does not come before it. Scores are made block by block and never kept.
    """
    best = np.full(len(queries), -np.inf, dtype=np.float32)
    top_score = np.full(len(queries), -np.inf, dtype=np.float32)
    top = np.zeros(len(queries), dtype=np.int64)
    owner = np.repeat(np.arange(len(relevant)), [len(rows) for rows in relevant])
    wanted = np.array([row for rows in relevant for row in rows], dtype=np.int64)
    # Scores come from the same block both times: another one could round them differently.
    for start in range(0, len(passages), _BLOCK_ROWS):
        scores = queries @ passages[start : start + _BLOCK_ROWS].T
        here = (wanted >= start) & (wanted < start + scores.shape[1])
        np.maximum.at(best, owner[here], scores[owner[here], wanted[here] - start])
        row = scores.argmax(axis=1)
        value = scores[np.arange(len(queries)), row]
        top = np.where(value > top_score, row + start, top)
        top_score = np.maximum(value, top_score)
    above = np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(passages), _BLOCK_ROWS):
        scores = queries @ passages[start : start + _BLOCK_ROWS].T
        above += (scores > best[:, None]).sum(axis=1)
    return Ranking(above + 1, top)
