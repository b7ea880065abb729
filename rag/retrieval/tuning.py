"""The fusion rule of each language, chosen on the dev questions so that it is safe on others.

A rule is judged by the mean over questions of (reciprocal rank + [rank is 1]) / 2. Few questions
make a quirk look good, so what counts is not the highest mean but the surest gain: of the rule's
mean difference to BM25 alone and to dense alone, each less two standard errors, the smaller one.
BM25 or dense alone has no error against itself, so without evidence for a mixture the better of the
two is kept. Measured with MiniLM over 200 random choices of dev and test articles: how often a
choice loses more than 0.5 points of recall@1 or MRR to the better part on test, and its gain of MRR
over it.

    dev questions            surest gain      highest mean
    SQuAD (en), about 1,260   0.0 %, +2.30     0.0 %, +2.37
    SQuAD (en), about 420     0.0 %, +2.06     0.5 %, +2.31
    XQuAD (zh), about 150     0.5 %, +0.00    24.0 %, +0.18
    CMRC (zh), about 210      0.0 %, +0.00     4.0 %, +0.02
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.params import RetrieveParams
from rag.records import Chunk, Question
from rag.retrieval.fusion import (
    DEFAULT,
    Candidates,
    FloatVector,
    Fusion,
    FusionRule,
    Method,
    first_relevant_rank,
    mean_best_bm25,
)
from rag.retrieval.index_payload import StoredPassage
from rag.retrieval.relevance import has_gold, is_relevant

#: A language with fewer dev questions than this shares the rule chosen over all of them.
MIN_QUESTIONS = 20
#: Standard errors that a gain must exceed to count; about 95 % one-sided would be 1.6.
_STANDARD_ERRORS = 2.0
_UNTUNED = 0.5
_DIGITS = 6

FindPassages = Callable[[Sequence[str]], Mapping[str, StoredPassage]]


@dataclass(frozen=True)
class _Judged:
    """A dev question's candidates, and which of them answer it, shape (C,)."""

    language: str
    candidates: Candidates
    relevant: npt.NDArray[np.bool_]


def choose_fusion(
    questions: Sequence[Question],
    candidates: Sequence[Candidates],
    chunks: Sequence[Chunk],
    find_passages: FindPassages,
    params: RetrieveParams,
) -> tuple[Fusion, dict[str, Any]]:
    """The fusion, and what it was chosen from: dev questions and scores of each rule, by language.

    `chunks` are those of the dev questions' documents (`gold_documents`); the candidates of
    questions whose document is not known are looked up by `find_passages`. Only dev questions with
    a gold passage count; without any, both searches weigh the same.
    """
    judged = _judged(questions, candidates, chunks, find_passages)
    groups: dict[str, list[_Judged]] = {DEFAULT: judged} if judged else {}
    for item in judged:
        groups.setdefault(item.language, []).append(item)
    untuned: Method = "rrf" if params.fusion == "rrf" else "weighted"
    rules = {DEFAULT: FusionRule(_UNTUNED, untuned, rrf_k=params.rrf_k)}
    facts: dict[str, Any] = {}
    for language, items in sorted(groups.items()):
        if language == DEFAULT or len(items) >= MIN_QUESTIONS:
            rules[language], facts[language] = _choose(items, params)
    return Fusion(rules), {"chosen_on": facts}


def gold_documents(questions: Sequence[Question]) -> set[str]:
    """The documents whose chunks `choose_fusion` needs."""
    return {item.document_id for item in questions if _counts(item) and item.document_id}


def _counts(question: Question) -> bool:
    return question.split == "dev" and has_gold(question)


def _judged(
    questions: Sequence[Question],
    candidates: Sequence[Candidates],
    chunks: Sequence[Chunk],
    find_passages: FindPassages,
) -> list[_Judged]:
    by_document: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        by_document.setdefault(chunk.document_id, []).append(chunk)
    usable = [pair for pair in zip(questions, candidates, strict=True) if _counts(pair[0])]
    wanted = {
        name for question, found in usable if question.document_id is None for name in found.ids
    }
    stored = find_passages(sorted(wanted)) if wanted else {}
    judged = []
    for question, found in usable:
        pool: Sequence[Chunk | StoredPassage]
        if question.document_id is None:
            pool = [stored[name] for name in found.ids]
        else:
            pool = by_document.get(question.document_id, ())
        gold = {
            item.chunk_id for item in pool if is_relevant(item.text, item.document_id, question)
        }
        relevant = np.array([name in gold for name in found.ids], dtype=np.bool_)
        judged.append(_Judged(question.language, found, relevant))
    return judged


def _choose(items: Sequence[_Judged], params: RetrieveParams) -> tuple[FusionRule, dict[str, Any]]:
    scale = round(mean_best_bm25([item.candidates for item in items]), _DIGITS)
    base = FusionRule(bm25_scale=scale, rrf_k=params.rrf_k)
    rules = _rules(base, params)
    bm25, dense = (
        _reciprocal_ranks(items, replace(base, dense_weight=weight)) for weight in (0.0, 1.0)
    )
    ranks = {rule: _reciprocal_ranks(items, rule) for rule in rules}
    gains = {
        rule: min(_sure_gain(found, bm25), _sure_gain(found, dense))
        for rule, found in ranks.items()
    }
    best = max(gains.values())
    chosen = _safest([rule for rule in rules if gains[rule] >= best - 1e-12])
    facts = {
        "dev_questions": len(items),
        "bm25": _scores(bm25),
        "dense": _scores(dense),
        "chosen": _scores(ranks[chosen]),
        "mrr": _curves(ranks),
    }
    return chosen, facts


def _rules(base: FusionRule, params: RetrieveParams) -> list[FusionRule]:
    """What is tried; the ends of RRF are those of the weighted sum, so one of them is enough."""
    weighted = [replace(base, dense_weight=weight) for weight in params.dense_weights]
    if params.fusion == "weighted":
        return weighted
    rrf = [replace(rule, method="rrf") for rule in weighted]
    if params.fusion == "rrf":
        return rrf
    return weighted + [rule for rule in rrf if 0.0 < rule.dense_weight < 1.0]


def _safest(alike: Sequence[FusionRule]) -> FusionRule:
    """Of rules that are equally good: one search alone where it is one of them, else the centre.

    The centre of a plateau is furthest from where the scores fall.
    """
    method = alike[0].method
    ordered = sorted(
        (rule for rule in alike if rule.method == method), key=lambda rule: rule.dense_weight
    )
    alone = [rule for rule in (ordered[0], ordered[-1]) if rule.dense_weight in (0.0, 1.0)]
    if len(set(alone)) == 1:
        return alone[0]
    return ordered[len(ordered) // 2]


def _reciprocal_ranks(items: Sequence[_Judged], rule: FusionRule) -> FloatVector:
    """1/rank of each question's first relevant candidate, 0 where there is none, shape (N,)."""
    ranks = [first_relevant_rank(item.candidates, rule, item.relevant) for item in items]
    return np.array([0.0 if rank is None else 1.0 / rank for rank in ranks])


def _sure_gain(reciprocal: FloatVector, part: FloatVector) -> float:
    """By how much a rule beats a part, less two standard errors of that difference."""
    gain = _utility(reciprocal) - _utility(part)
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else abs(gain[0])
    return float(gain.mean() - _STANDARD_ERRORS * error)


def _utility(reciprocal: FloatVector) -> FloatVector:
    utility: FloatVector = (reciprocal + (reciprocal == 1.0)) / 2.0
    return utility


def _scores(reciprocal: FloatVector) -> dict[str, float]:
    return {
        "mrr": round(float(reciprocal.mean()), _DIGITS),
        "recall@1": round(float((reciprocal == 1.0).mean()), _DIGITS),
    }


def _curves(ranks: Mapping[FusionRule, FloatVector]) -> dict[str, dict[str, float]]:
    """Method -> weight -> MRR."""
    curves: dict[str, dict[str, float]] = {}
    for rule, reciprocal in ranks.items():
        curve = curves.setdefault(rule.method, {})
        curve[str(rule.dense_weight)] = round(float(reciprocal.mean()), _DIGITS)
    return curves
