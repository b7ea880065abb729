"""Hybrid retrieval: one ranking from dense similarity and BM25, by a rule for each language.

`weighted` adds scores: `w · dense + (1 - w) · bm25 / bm25_scale`. The scale is one number for all
questions of a language, the mean of their best BM25 scores, and not the range of one question's
scores: scaled to its own range, a dense search that knows nothing of a language would still have a
best passage of score 1. Measured with MiniLM: on SQuAD (not its test articles) MRR at the best
weight 88.5 with one scale, 88.2 with both divided by their maxima, 88.1 with z-scores, 87.9 with
both scaled to [0, 1], 86.7 at best by RRF; on Chinese (XQuAD), which the encoder does not know, MRR
at weight 0.5 94.7 of BM25's 95.3 with one scale, 79.8 with scores scaled to [0, 1], 52.4 by RRF.
A candidate that one of the searches did not return gets the lowest score that this search gave: as
good as its true score, which was tried.

`rrf` adds reciprocal ranks (Cormack, Clarke and Büttcher 2009), weighted:
`w / (k + dense rank) + (1 - w) / (k + bm25 rank)`, 0 for a search that did not return it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

DEFAULT = "default"
FloatVector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
Method = Literal["weighted", "rrf"]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The chunks found for one question, C of them, with the raw scores of both searches.

    `dense` and `bm25` have shape (C,), NaN where that search did not return the chunk; a BM25 score
    of 0 is known to share no term. Ids ascend, so that ties are broken the same way everywhere.
    """

    ids: tuple[str, ...]
    dense: FloatVector
    bm25: FloatVector

    @classmethod
    def of(
        cls, dense: Mapping[str, float], bm25: Mapping[str, float], absent: float = np.nan
    ) -> Candidates:
        """The union of two searches' hits; `absent` is BM25's score of what only dense found."""
        ids = tuple(sorted(dense.keys() | bm25.keys()))
        return cls(
            ids,
            np.array([dense.get(name, np.nan) for name in ids], dtype=np.float64),
            np.array([bm25.get(name, absent) for name in ids], dtype=np.float64),
        )


@dataclass(frozen=True)
class FusionRule:
    """How one language's candidates are ranked; 0 is BM25 alone, 1 dense alone."""

    dense_weight: float = 0.5
    method: Method = "weighted"
    bm25_scale: float = 20.0
    rrf_k: int = 60


@dataclass(frozen=True)
class Fusion:
    """The rule of each language, `default` for the others.

    `reranker` is the SHA-256 of the cross-encoder that reads after it, None where there is none.
    """

    rules: Mapping[str, FusionRule] = field(default_factory=lambda: {DEFAULT: FusionRule()})
    reranker: str | None = None

    def rule(self, language: str) -> FusionRule:
        return self.rules.get(language, self.rules[DEFAULT])

    def write(self, path: Path, **facts: object) -> None:
        """One JSON object; `facts` say what the rules were chosen from."""
        names = sorted(self.rules)
        tree = {
            "method": {name: self.rules[name].method for name in names},
            "dense_weight": {name: self.rules[name].dense_weight for name in names},
            "bm25_scale": {name: self.rules[name].bm25_scale for name in names},
            "rrf_k": self.rules[DEFAULT].rrf_k,
            "reranker": self.reranker,
            **facts,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Fusion:
        tree = json.loads(path.read_text(encoding="utf-8"))
        method, scale = tree["method"], tree["bm25_scale"]
        return cls(
            {
                name: FusionRule(weight, method[name], scale[name], tree["rrf_k"])
                for name, weight in tree["dense_weight"].items()
            },
            tree["reranker"],
        )


def fuse(candidates: Candidates, rule: FusionRule) -> tuple[IntVector, FloatVector]:
    """Positions in `candidates`, best first, and their fused scores, both (C,); ties by id."""
    scores = fused_scores(candidates, rule)
    order = np.argsort(-scores, kind="stable")
    return order, scores[order]


def fused_scores(candidates: Candidates, rule: FusionRule) -> FloatVector:
    """One score a candidate, shape (C,), in the order of the candidates."""
    weight = rule.dense_weight
    if rule.method == "rrf":
        dense = _reciprocal_ranks(candidates.dense, rule.rrf_k)
        bm25 = _reciprocal_ranks(
            np.where(candidates.bm25 > 0.0, candidates.bm25, np.nan), rule.rrf_k
        )
    else:
        dense = _filled(candidates.dense)
        bm25 = _filled(candidates.bm25) / rule.bm25_scale
    fused: FloatVector = weight * dense + (1.0 - weight) * bm25
    return fused


def _filled(scores: FloatVector) -> FloatVector:
    """Missing scores are the lowest one found, 0 where nothing was found."""
    missing = np.isnan(scores)
    if missing.all():
        return np.zeros_like(scores)
    return np.where(missing, scores[~missing].min(), scores)


def _reciprocal_ranks(scores: FloatVector, rrf_k: int) -> FloatVector:
    """1 / (k + rank), rank 1 the best; equal scores share the best of their ranks."""
    found = ~np.isnan(scores)
    ascending = np.sort(scores[found])
    better = len(ascending) - np.searchsorted(ascending, scores, side="right")
    return np.where(found, 1.0 / (rrf_k + better + 1.0), 0.0)


def first_relevant_rank(
    candidates: Candidates, rule: FusionRule, relevant: npt.NDArray[np.bool_]
) -> int | None:
    """The rank, from 1, of the best relevant candidate; None where there is none."""
    order, _ = fuse(candidates, rule)
    ranks = np.flatnonzero(relevant[order])
    return int(ranks[0]) + 1 if len(ranks) else None


def mean_best_bm25(candidates: Sequence[Candidates]) -> float:
    """The mean over questions of their best BM25 score: what `bm25_scale` is set to."""
    best = [float(np.nanmax(found.bm25)) for found in candidates if not np.isnan(found.bm25).all()]
    mean = float(np.mean(best)) if best else 0.0
    return mean if mean > 0.0 else FusionRule().bm25_scale
