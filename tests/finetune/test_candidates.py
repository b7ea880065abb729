"""Candidates scored with what retrieval knew of them, and where those that answer stand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rag.errors import TrainingError
from rag.finetune.candidates import (
    CandidateScorer,
    gold_posterior,
    lexical_terms,
    ranking_metrics,
    read_places,
)
from rag.finetune.examples import ReadingExample
from rag.reading.reader import as_evidence
from rag.records import Answer, Passage, Question
from rag.retrieval.embeddings import make_embeddings
from rag.retrieval.fusion import Fusion, FusionRule


def passage(*, score: float, dense: float, bm25: float) -> Passage:
    return Passage("c", "d", "text", score, 1, dense, bm25)


def test_what_bm25_adds_is_what_retrieval_counted() -> None:
    rule = FusionRule(dense_weight=0.6, bm25_scale=20.0)
    found = lexical_terms(
        [
            passage(score=0.6 * 0.5 + 0.4 * 0.75, dense=0.5, bm25=15.0),
            passage(score=0.6 * 0.4 + 0.4 * 0.25, dense=0.4, bm25=0.0),  # filled in with 5.0
            passage(score=9.9, dense=0.0, bm25=10.0),  # dense did not find it
            passage(score=9.9, dense=0.0, bm25=0.0),  # put in because it answers
        ],
        rule,
    )
    np.testing.assert_allclose(found, [0.4 * 0.75, 0.4 * 0.25, 0.4 * 0.5, 0.4 * 0.25])


@pytest.mark.parametrize(
    ("relevant", "answered_from", "expected"),
    [
        ((), (0, 1, 2, 3), [2, 0]),  # nothing answers: to be refused
        ((0, 1), (0, 1, 2, 3), [2, 0]),
        ((1, 3), (0, 1, 2, 3), [2, 3]),
        ((1, 3), (0, 1), [2, 1]),  # the other one is cut off before the answer
        ((3,), (1,), [2, 1]),
    ],
)
def test_a_train_question_reads_a_passage_that_answers_it(
    relevant: Sequence[int], answered_from: Sequence[int], expected: list[int]
) -> None:
    answers = np.isin(np.arange(4), relevant)
    scores = [0.5, 0.1, 0.9, 0.2, -np.inf]
    assert read_places(scores, 2, answers, answered_from) == expected


def example(*shown: tuple[str, float], answerable: bool = True) -> ReadingExample:
    """Passages with their scores; those that hold "noon" answer."""
    answers = ("noon",) if answerable else ()
    question = Question("q", "when?", answers, None, answerable, "dev", "en")
    passages = [
        Passage(f"{i:016x}", "d", text, score, i + 1) for i, (text, score) in enumerate(shown)
    ]
    return ReadingExample(question, tuple(passages), "noon" if answerable else "")


FIRST = example(("at noon", 0.5), ("at dawn", 0.5), ("noon", 0.1))
SECOND = example(("at dawn", 0.5), ("at night", 0.5), ("at noon", 0.4))
NOWHERE = example(("at dawn", 0.5))
UNANSWERABLE = example(("at noon", 0.5), answerable=False)


def test_where_passages_that_answer_stand() -> None:
    found = ranking_metrics([FIRST, SECOND, NOWHERE, UNANSWERABLE], 2, 0.1)
    assert found == pytest.approx(
        {
            "recall@1": 100 / 3,
            "mrr": 100 * (1 + 1 / 3) / 3,
            "gold_prior": 100 * (0.5 + 0 + 0) / 3,  # the second one's is not read
        }
    )
    assert ranking_metrics([UNANSWERABLE], 2, 0.1) == {}


def test_the_posterior_of_passages_that_answer() -> None:
    answers = [
        Answer("noon", 0.0, False, as_evidence(FIRST.passages, [0.6, 0.1, 0.3])),
        Answer("night", 0.0, False, as_evidence(SECOND.passages, [0.5, 0.4, 0.1])),
        Answer("noon", 0.0, False, as_evidence(UNANSWERABLE.passages, [1.0])),
    ]
    found = gold_posterior(answers, [FIRST, SECOND, UNANSWERABLE])
    assert found == pytest.approx({"gold_posterior": 100 * (0.9 + 0.1) / 2})


def test_a_score_is_of_the_passages_own_vector() -> None:
    import torch

    ids = ["0000000000000002", "0000000000000000", "0000000000000001"]
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=np.float32)
    rules = {"default": FusionRule(dense_weight=0.5)}
    scorer = CandidateScorer(make_embeddings(ids, vectors, "encoder"), Fusion(rules))
    terms = [scorer.terms(FIRST), scorer.terms(NOWHERE)]
    scores = scorer.scores(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), terms)
    # Chunks 0, 1, 2, then chunk 0 alone; no passage has a BM25 score, so nothing is added.
    np.testing.assert_allclose(scores, [[0.3, 0.0, 0.5], [0.4, -np.inf, -np.inf]])
    unknown = CandidateScorer(make_embeddings(ids[:1], vectors[:1], "encoder"), Fusion(rules))
    with pytest.raises(TrainingError, match="has no vector"):
        unknown.terms(FIRST)
