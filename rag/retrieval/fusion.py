"""Hybrid retrieval: one score from dense similarity and BM25, its weight chosen on dev.

Fusion is a weighted sum of scores that are scaled to [0, 1] over the candidates of one question:
`score = w · dense + (1 - w) · bm25`. A candidate that one of the searches did not return gets the
lowest score that this search gave. Weights matter: unweighted rank fusion falls below BM25 alone
where the dense encoder does not know the language, so each language has a weight of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT = "default"


@dataclass(frozen=True)
class Candidate:
    """A chunk with its raw scores for one question; None where that search did not return it."""

    chunk_id: str
    dense: float | None
    bm25: float | None


@dataclass(frozen=True)
class Fusion:
    """Share of the dense score for each language, `default` for the others."""

    dense_weight: Mapping[str, float] = field(default_factory=lambda: {DEFAULT: 0.5})

    def weight(self, language: str) -> float:
        return self.dense_weight.get(language, self.dense_weight[DEFAULT])

    def write(self, path: Path, **facts: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        tree = {"dense_weight": dict(self.dense_weight), **facts}
        path.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Fusion:
        return cls(json.loads(path.read_text(encoding="utf-8"))["dense_weight"])


def fuse(candidates: Sequence[Candidate], dense_weight: float) -> list[tuple[int, float]]:
    """(position in `candidates`, fused score), best first; ties by chunk id."""
    dense = _scaled([candidate.dense for candidate in candidates])
    bm25 = _scaled([candidate.bm25 for candidate in candidates])
    scores = [dense_weight * d + (1.0 - dense_weight) * b for d, b in zip(dense, bm25, strict=True)]
    order = sorted(range(len(candidates)), key=lambda i: (-scores[i], candidates[i].chunk_id))
    return [(i, scores[i]) for i in order]


def _scaled(scores: Sequence[float | None]) -> list[float]:
    found = [score for score in scores if score is not None]
    if not found:
        return [0.0] * len(scores)
    low, high = min(found), max(found)
    span = high - low
    if span == 0.0:
        return [0.0 if score is None else 1.0 for score in scores]
    return [0.0 if score is None else (score - low) / span for score in scores]


def choose_dense_weight(
    candidates: Sequence[Sequence[Candidate]],
    relevant: Sequence[frozenset[str]],
    weights: Sequence[float],
) -> tuple[float, dict[float, float]]:
    """The weight of the highest mean reciprocal rank, and the MRR of every weight tried.

    `relevant[i]` are the chunk ids that answer question i. Of equal weights the middle one is
    taken: the plateau's centre is the choice least likely to be a quirk of few dev questions.
    """
    curve = {
        weight: sum(
            reciprocal_rank([question[i].chunk_id for i, _ in fuse(question, weight)], gold)
            for question, gold in zip(candidates, relevant, strict=True)
        )
        / len(candidates)
        for weight in weights
    }
    best = max(curve.values())
    plateau = sorted(weight for weight, value in curve.items() if value >= best - 1e-12)
    return plateau[len(plateau) // 2], curve


def reciprocal_rank(ranked: Sequence[str], relevant: frozenset[str]) -> float:
    """1/rank of the first relevant id, 0 where there is none."""
    for rank, chunk_id in enumerate(ranked, start=1):
        if chunk_id in relevant:
            return 1.0 / rank
    return 0.0
