"""The fusion weight, chosen on the dev questions, for each language that has enough of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rag.records import Chunk, Question
from rag.retrieval.fusion import DEFAULT, Candidate, Fusion, choose_dense_weight
from rag.retrieval.relevance import has_gold, is_relevant

#: A language with fewer dev questions than this shares the weight chosen over all of them.
MIN_QUESTIONS = 20
_UNTUNED = 0.5


def choose_fusion(
    questions: Sequence[Question],
    candidates: Sequence[Sequence[Candidate]],
    chunks: Sequence[Chunk],
    weights: Sequence[float],
) -> tuple[Fusion, dict[str, Any]]:
    """The fusion, and what it was chosen from: dev questions and MRR of each weight, by language.

    Only dev questions with a gold passage count; without any, both searches weigh the same.
    """
    by_id = {chunk.chunk_id: chunk for chunk in chunks}
    by_document: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        by_document.setdefault(chunk.document_id, []).append(chunk)
    usable = [
        (question, found, _relevant(question, found, by_id, by_document))
        for question, found in zip(questions, candidates, strict=True)
        if question.split == "dev" and has_gold(question)
    ]
    groups: dict[str, list[tuple[Question, Sequence[Candidate], frozenset[str]]]] = {
        DEFAULT: usable
    }
    for item in usable:
        groups.setdefault(item[0].language, []).append(item)
    chosen: dict[str, float] = {}
    facts: dict[str, Any] = {}
    for language, items in sorted(groups.items()):
        if not items or (language != DEFAULT and len(items) < MIN_QUESTIONS):
            continue
        weight, curve = choose_dense_weight(
            [found for _, found, _ in items], [gold for _, _, gold in items], weights
        )
        chosen[language] = weight
        facts[language] = {
            "dev_questions": len(items),
            "mrr": {str(key): round(value, 6) for key, value in curve.items()},
        }
    chosen.setdefault(DEFAULT, _UNTUNED)
    return Fusion(chosen), {"chosen_on": facts}


def _relevant(
    question: Question,
    found: Sequence[Candidate],
    by_id: Mapping[str, Chunk],
    by_document: Mapping[str, Sequence[Chunk]],
) -> frozenset[str]:
    """The chunks that answer a question: among its document's, or among those found for it."""
    if question.document_id is not None:
        pool = list(by_document.get(question.document_id, ()))
    else:
        pool = [by_id[candidate.chunk_id] for candidate in found]
    return frozenset(
        chunk.chunk_id for chunk in pool if is_relevant(chunk.text, chunk.document_id, question)
    )
