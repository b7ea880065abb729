"""Exact match that counts only where the evidence is right: an answer must also be read, not known.

A reader can give the right answer from memory, or from a passage that says something else; then the
passage shown beside the answer does not support it. KILT (Petroni et al., 2021) gates its scores in
the same way by the retrieved page; here the passage itself must hold an accepted answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rag.errors import MetricError
from rag.evaluation.answer_scores import exact_match
from rag.evaluation.normalize import answer_tokens
from rag.retrieval.relevance import contains


def evidence_passages(
    passages: Sequence[str], posteriors: Sequence[float | None] | None = None
) -> tuple[str, ...]:
    """The passages that an answer came from, out of those that were read, best rank first.

    Where the reader weighs its passages that is the one of the highest posterior, the better ranked
    of equals. A reader that weighs none (all are in one prompt) answers from all it has read, so
    they all are the evidence. Raises MetricError for a posterior that is not finite.
    """
    if posteriors is None:
        return tuple(passages)
    if len(posteriors) != len(passages):
        raise MetricError(f"evidence: {len(passages)} passages but {len(posteriors)} posteriors")
    weighed = [(place, value) for place, value in enumerate(posteriors) if value is not None]
    for place, value in weighed:
        if not math.isfinite(value):
            raise MetricError(f"evidence: the posterior of passage {place + 1} is {value}")
    if not weighed:
        return tuple(passages)
    best, _ = max(weighed, key=lambda pair: (pair[1], -pair[0]))
    return (passages[best],)


def evidence_exact_match(
    prediction: str,
    answers: Sequence[str],
    passages: Sequence[str],
    posteriors: Sequence[float | None] | None = None,
) -> float:
    """1.0 when the prediction is right and its evidence holds an accepted answer, else 0.0.

    `passages` are those read, best rank first; `posteriors` are p(passage | question, answer) in
    the same order, None for a passage without. Whether a passage holds an answer is decided as for
    recall (`relevance.contains`). A question without an answer has no evidence to hold: to decline
    it is right. An answer of a system that reads no passages never counts.
    """
    evidence = evidence_passages(passages, posteriors)
    if not exact_match(prediction, answers):
        return 0.0
    if not answer_tokens(prediction):  # rightly declined
        return 1.0
    return float(any(contains(passage, answer) for passage in evidence for answer in answers))
