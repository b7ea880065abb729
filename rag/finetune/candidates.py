"""The candidates of a question, scored by a query encoder that learns: the fused score in torch.

The same sum as `weighted` of `rag.retrieval.fusion`, in float32 and with gradient in the query.
What BM25 adds stays as it is. Retrieval knows no BM25 score of what only dense search found and
fills in a number; what that was follows from the fused score. Dense scores are always true ones,
where retrieval fills in the lowest for what only BM25 found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag.errors import TrainingError
from rag.finetune.examples import ReadingExample
from rag.reading.marginal import log_prior
from rag.records import Answer, Passage
from rag.retrieval.embeddings import Embeddings, to_number
from rag.retrieval.fusion import Fusion, FusionRule
from rag.retrieval.relevance import has_gold, is_relevant

if TYPE_CHECKING:
    import torch

FloatVector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
BoolVector = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CandidateTerms:
    """What stays of the scores of a question's L candidates while the encoder learns."""

    weight: float
    """Of dense similarity, by the rule of the question's language."""
    lexical: FloatVector
    """The rest of each score, (L,)."""
    rows: IntVector
    """Where the candidates' vectors are, (L,)."""
    relevant: BoolVector
    """Which candidates answer the question, (L,)."""


class CandidateScorer:
    """Scores by the vectors that the index has, which are never changed."""

    def __init__(self, embeddings: Embeddings, fusion: Fusion) -> None:
        self._vectors = embeddings.vectors
        self._ids = embeddings.ids
        self._order = np.argsort(embeddings.ids)
        self._fusion = fusion

    def terms(self, example: ReadingExample) -> CandidateTerms:
        """What is needed to score an example's passages; TrainingError where one has no vector."""
        question = example.question
        rule = self._fusion.rule(question.language)
        return CandidateTerms(
            weight=rule.dense_weight,
            lexical=lexical_terms(example.passages, rule),
            rows=self._rows([passage.chunk_id for passage in example.passages]),
            relevant=relevance(example),
        )

    def scores(self, queries: torch.Tensor, terms: Sequence[CandidateTerms]) -> torch.Tensor:
        """Fused scores (B, L) of query vectors (B, D); -inf where a question has fewer."""
        import torch

        width = max(len(own.rows) for own in terms)
        rows = np.zeros((len(terms), width), dtype=np.int64)
        lexical = np.full((len(terms), width), -np.inf, dtype=np.float32)
        for i, own in enumerate(terms):
            rows[i, : len(own.rows)] = own.rows
            lexical[i, : len(own.rows)] = own.lexical
        device = queries.device
        vectors = torch.from_numpy(self._vectors[rows.ravel()]).to(device)
        dense = torch.einsum("bd,bld->bl", queries, vectors.view(*rows.shape, -1))
        weights = torch.tensor([own.weight for own in terms], device=device)
        return weights[:, None] * dense + torch.from_numpy(lexical).to(device)

    def _rows(self, chunk_ids: Sequence[str]) -> IntVector:
        wanted = np.array([to_number(chunk_id) for chunk_id in chunk_ids], dtype=np.uint64)
        places = np.searchsorted(self._ids, wanted, sorter=self._order)
        rows: IntVector = self._order[np.minimum(places, len(self._order) - 1)]
        if not np.array_equal(self._ids[rows], wanted):
            raise TrainingError(
                "a passage that was retrieved has no vector: contexts and embeddings are of "
                "different chunks; run: dvc repro train_reader"
            )
        return rows


def lexical_terms(passages: Sequence[Passage], rule: FusionRule) -> FloatVector:
    """`(1 - w) · bm25 / bm25_scale` of each passage, (L,), as retrieval counted it.

    A passage that retrieval did not find, put in because it answers, has no score of its own and
    gets the lowest of the others: what retrieval fills in where BM25 did not find a passage.
    """
    terms = np.full(len(passages), np.nan)
    for i, passage in enumerate(passages):
        if passage.bm25_score > 0.0:
            terms[i] = (1.0 - rule.dense_weight) * passage.bm25_score / rule.bm25_scale
        elif passage.dense_score != 0.0:
            terms[i] = passage.score - rule.dense_weight * passage.dense_score
    lowest = 0.0 if np.isnan(terms).all() else float(np.nanmin(terms))
    return np.where(np.isnan(terms), lowest, terms)


def best_first(scores: Sequence[float]) -> list[int]:
    """Places by score, highest first; equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def read_places(
    scores: Sequence[float], count: int, relevant: BoolVector, answered_from: Sequence[int]
) -> list[int]:
    """Places of the best `count` of L candidates, at least one of them in `answered_from`.

    And at least one that is relevant, if any of those is: the best takes the last place where none
    of the others does. `scores` may go on after the L that `relevant` has.
    """
    order = best_first(scores[: len(relevant)])
    chosen = order[:count]
    wanted = {place for place in answered_from if relevant[place]} or set(answered_from)
    if wanted.isdisjoint(chosen):
        chosen[-1] = next(place for place in order if place in wanted)
    return chosen


def relevance(example: ReadingExample) -> BoolVector:
    """Which passages answer the question, (L,)."""
    question = example.question
    return np.array(
        [
            has_gold(question) and is_relevant(passage.text, passage.document_id, question)
            for passage in example.passages
        ],
        dtype=np.bool_,
    )


def ranking_metrics(
    examples: Sequence[ReadingExample], count: int, temperature: float
) -> dict[str, float]:
    """Where passages that answer stand, in percent: means over the answerable examples.

    `recall@1` and `mrr` are of all the passages, and 0 where none of them answers; `gold_prior` is
    the p(z|x) that those which answer have among the first `count`.
    """
    import torch

    found: dict[str, list[float]] = {"recall@1": [], "mrr": [], "gold_prior": []}
    for example in examples:
        if not has_gold(example.question):
            continue
        relevant = relevance(example)
        places = np.flatnonzero(relevant)
        found["recall@1"].append(float(relevant[0]))
        found["mrr"].append(1.0 / (int(places[0]) + 1) if len(places) else 0.0)
        scores = torch.tensor([passage.score for passage in example.passages[:count]])
        prior = log_prior(scores, temperature).exp().numpy()
        found["gold_prior"].append(float(prior[relevant[:count]].sum()))
    return {name: 100.0 * float(np.mean(values)) for name, values in found.items() if values}


def gold_posterior(
    answers: Sequence[Answer], examples: Sequence[ReadingExample]
) -> dict[str, float]:
    """`gold_posterior`: the p(z|x,y) that passages which answer have, in percent, as the mean over
    the answerable examples; nothing where there is none."""
    found = [
        sum(
            item.posterior or 0.0
            for item in answer.evidence
            if is_relevant(item.text, item.document_id, example.question)
        )
        for answer, example in zip(answers, examples, strict=True)
        if has_gold(example.question)
    ]
    return {"gold_posterior": 100.0 * float(np.mean(found))} if found else {}
