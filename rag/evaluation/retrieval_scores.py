"""The scores of a retrieval run: every query that was judged counts, whether it was run or not.

The run gives each query its documents, ranked or with scores; the judgements give each query its
relevant documents, all alike or with gains. What is compared is what trec_eval compares:

- Scores are sorted from the highest down, and of equal scores the document whose id sorts last
  comes first. (trec_eval also rounds scores to single precision first; here they stay as given.)
- A document that was not judged is not relevant.
- A query with judgements that the run lacks, or for which it found nothing, scores 0 and is named
  in `missing`: a mean over the queries that happened to succeed would flatter the system.
- A query without any relevant document has no recall to speak of. It is left out of every score
  and named in `without_relevant`. A query in the run that was never judged is an error.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.metric_groups import refuse, repeated
from rag.evaluation.ranking import (
    average_precision,
    hit_at,
    ndcg_at,
    precision_at,
    r_precision,
    recall_at,
    reciprocal_rank,
)

#: Document ids best first, or each document with its score.
Ranked = Sequence[str] | Mapping[str, float]
#: The ids of the relevant documents, or each judged document with its gain; relevant is gain > 0.
Judged = Collection[str] | Mapping[str, float]
RUN_CUTOFFS = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalScores:
    """Scores of Q queries, 0 to 1: `per_query` holds a vector (Q,) for each metric.

    Metrics are `mrr`, `map`, `ndcg`, `r_precision`, and for each cut-off k `recall@k`,
    `precision@k`, `hit_rate@k` and `ndcg@k`. Rows are `query_ids`, in the order of the judgements.
    """

    query_ids: tuple[str, ...]
    per_query: Mapping[str, npt.NDArray[np.float64]]
    missing: tuple[str, ...]
    without_relevant: tuple[str, ...]

    @property
    def means(self) -> dict[str, float]:
        """The mean of each metric over all queries, 0 to 1."""
        return {name: float(scores.mean()) for name, scores in self.per_query.items()}


def retrieval_scores(
    run: Mapping[str, Ranked],
    judgements: Mapping[str, Judged],
    *,
    cutoffs: Sequence[int] = RUN_CUTOFFS,
    exponential: bool = False,
) -> RetrievalScores:
    """Scores of a run, joined to the judgements by query id.

    `exponential` is the gain of nDCG (`ranking.ndcg_at`). Raises MetricError naming queries that
    were never judged, documents that a query ranks twice, scores and gains that are not finite, or
    when no query has a relevant document.
    """
    if bad := [cutoff for cutoff in cutoffs if cutoff < 1]:
        raise MetricError(f"retrieval: cut-offs must be >= 1, got {bad[0]}")
    unjudged = [query for query in run if query not in judgements]
    refuse("retrieval: queries in the run that were never judged", unjudged)
    rows: dict[str, dict[str, float]] = {}
    without_relevant = []
    for query, judged in judgements.items():
        gain_of = _gains(query, judged)
        if not any(gain_of.values()):
            without_relevant.append(query)
            continue
        ranked = ranked_documents(query, run.get(query, ()))
        rows[query] = _scores(ranked, gain_of, cutoffs, exponential)
    if not rows:
        raise MetricError("retrieval: no query has a relevant document: nothing can be scored")
    return RetrievalScores(
        query_ids=tuple(rows),
        per_query={
            name: np.array([scores[name] for scores in rows.values()])
            for name in next(iter(rows.values()))
        },
        missing=tuple(query for query in rows if not run.get(query)),
        without_relevant=tuple(without_relevant),
    )


def ranked_documents(query: str, found: Ranked) -> list[str]:
    """Document ids best first; of equal scores the id that sorts last, as in trec_eval."""
    if isinstance(found, Mapping):
        refuse(
            f"retrieval: query {query}: scores that are not finite, of documents",
            [name for name, score in found.items() if not math.isfinite(score)],
        )
        return sorted(found, key=lambda name: (found[name], name), reverse=True)
    refuse(f"retrieval: query {query}: documents ranked twice", repeated(found))
    return list(found)


def _scores(
    ranked: Sequence[str], gain_of: Mapping[str, float], cutoffs: Sequence[int], exponential: bool
) -> dict[str, float]:
    gains = [gain_of.get(name, 0.0) for name in ranked]
    relevant = [gain > 0.0 for gain in gains]
    judged = list(gain_of.values())
    total = sum(gain > 0.0 for gain in judged)
    scores = {
        "mrr": reciprocal_rank(relevant),
        "map": average_precision(relevant, total),
        "ndcg": ndcg_at(gains, None, judged, exponential=exponential),
        "r_precision": r_precision(relevant, total),
    }
    for cutoff in cutoffs:
        scores[f"recall@{cutoff}"] = recall_at(relevant, cutoff, total)
        scores[f"precision@{cutoff}"] = precision_at(relevant, cutoff)
        scores[f"hit_rate@{cutoff}"] = hit_at(relevant, cutoff)
        scores[f"ndcg@{cutoff}"] = ndcg_at(gains, cutoff, judged, exponential=exponential)
    return scores


def _gains(query: str, judged: Judged) -> dict[str, float]:
    if not isinstance(judged, Mapping):
        refuse(f"retrieval: query {query}: documents judged twice", repeated(judged))
        return dict.fromkeys(judged, 1.0)
    refuse(
        f"retrieval: query {query}: gains must be finite and >= 0, and are not for documents",
        [name for name, gain in judged.items() if not (math.isfinite(gain) and gain >= 0.0)],
    )
    return dict(judged)
