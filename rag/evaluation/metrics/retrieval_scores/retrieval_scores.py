"""Recall, precision, MRR, MAP, nDCG, R-precision and hit rate as an `evaluate` module."""

from __future__ import annotations

from typing import Any

import evaluate

from rag.errors import MetricError
from rag.evaluation.metric_groups import refuse, repeated
from rag.evaluation.metrics.module_info import metric_info
from rag.evaluation.retrieval_scores import RUN_CUTOFFS, Judged, Ranked, retrieval_scores


class RetrievalScores(evaluate.Metric):
    """`compute(predictions, references, scores=None, gains=None, query_ids=None, ...)`, in percent:

    `{"mrr", "map", "recall@5", ..., "scores": {metric: [...]}, "query_ids", "missing",
    "without_relevant"}`.
    """

    def _info(self) -> Any:
        from datasets import Features, Value
        from datasets.features import List

        ids = List(Value("string"))
        return metric_info(
            "Recall, precision, hit rate and nDCG at cut-offs, MRR, MAP, nDCG and R-precision of a "
            "retrieval run, in percent. A query for which nothing was retrieved counts 0.",
            "Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, chapter 8",
            """
Args:
    predictions: the ids of the documents retrieved for each query, best first; none is allowed.
    references: the ids of the relevant (or judged) documents of each query.
    scores: the scores of the predictions, by which they are then sorted as trec_eval sorts.
    gains: the gains of the references; by default each is relevant with gain 1.
    query_ids: names of the queries; by default their row numbers.
    cutoffs: the ranks k of recall@k, precision@k, hit_rate@k and ndcg@k.
    exponential: whether a gain g counts 2^g - 1 in nDCG in place of g.
""",
            Features({"predictions": ids, "references": ids}),
        )

    def _compute(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        *,
        scores: list[list[float]] | None = None,
        gains: list[list[float]] | None = None,
        query_ids: list[str] | None = None,
        cutoffs: tuple[int, ...] = RUN_CUTOFFS,
        exponential: bool = False,
    ) -> dict[str, Any]:
        names = list(map(str, range(len(references)))) if query_ids is None else query_ids
        refuse("retrieval: queries that occur twice", repeated(names))
        run: dict[str, Ranked] = _named(names, predictions, scores, "scores")
        judgements: dict[str, Judged] = _named(names, references, gains, "gains")
        found = retrieval_scores(run, judgements, cutoffs=cutoffs, exponential=exponential)
        return {
            **{name: 100.0 * value for name, value in found.means.items()},
            "scores": {name: each.tolist() for name, each in found.per_query.items()},
            "query_ids": list(found.query_ids),
            "missing": list(found.missing),
            "without_relevant": list(found.without_relevant),
        }


def _named(
    names: list[str], documents: list[list[str]], values: list[list[float]] | None, what: str
) -> dict[str, Any]:
    """The documents of each query, with their values where there are any."""
    if len(names) != len(documents):
        raise MetricError(f"retrieval: {len(names)} query ids for {len(documents)} queries")
    if values is None:
        return dict(zip(names, documents, strict=True))
    if list(map(len, values)) != list(map(len, documents)):
        raise MetricError(f"retrieval: {what} must be one number for each document of each query")
    joined = {}
    for name, ids, numbers in zip(names, documents, values, strict=True):
        refuse(f"retrieval: query {name}: documents that occur twice", repeated(ids))
        joined[name] = dict(zip(ids, numbers, strict=True))
    return joined
