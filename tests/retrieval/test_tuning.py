"""rag/retrieval/tuning.py: which questions choose the weight, and for which language."""

from __future__ import annotations

import pytest

from rag.records import Chunk, Question, Split
from rag.retrieval.fusion import Candidate
from rag.retrieval.tuning import MIN_QUESTIONS, choose_fusion

WEIGHTS = (0.0, 0.5, 1.0)
#: Dense finds a chunk of the gold document that lacks the answer, or BM25 does.
CHUNKS = [
    Chunk("dense", "d1", 0, "The Petrel carries 310.", 6),
    Chunk("terms", "d1", 1, "The Petrel was built in 2009.", 7),
]
FOUND = [Candidate("dense", 0.9, 1.0), Candidate("terms", 0.1, 5.0)]


def questions(
    count: int, answer: str, language: str = "en", split: Split = "dev", document: str | None = "d1"
) -> list[Question]:
    return [
        Question(f"{language}{i}", "?", (answer,), document, True, split, language)
        for i in range(count)
    ]


def chosen(asked: list[Question]) -> tuple[dict[str, float], dict[str, dict[str, object]]]:
    fusion, facts = choose_fusion(asked, [FOUND] * len(asked), CHUNKS, WEIGHTS)
    return dict(fusion.dense_weight), facts["chosen_on"]


def test_the_search_that_finds_the_answer_gets_the_weight() -> None:
    """At 0.5 the scores tie and the smaller id, "dense", is first."""
    weights, facts = chosen(questions(3, "2009"))
    assert weights == {"default": 0.0}
    assert facts == {"default": {"dev_questions": 3, "mrr": {"0.0": 1.0, "0.5": 0.5, "1.0": 0.5}}}
    assert chosen(questions(3, "310"))[0] == {"default": 1.0}


@pytest.mark.parametrize("document", ["d1", None])
def test_the_gold_document_need_not_be_known(document: str | None) -> None:
    assert chosen(questions(3, "2009", document=document))[0] == {"default": 0.0}


def test_a_language_has_its_own_weight_from_enough_questions_on() -> None:
    asked = [*questions(MIN_QUESTIONS, "2009", "zh"), *questions(MIN_QUESTIONS + 5, "310", "en")]
    weights, facts = chosen(asked)
    assert weights == {"default": 1.0, "en": 1.0, "zh": 0.0}
    assert {language: fact["dev_questions"] for language, fact in facts.items()} == {
        "default": 45,
        "en": 25,
        "zh": 20,
    }


def test_a_language_with_fewer_shares_the_weight_of_all() -> None:
    asked = [*questions(MIN_QUESTIONS - 1, "2009", "zh"), *questions(MIN_QUESTIONS, "310", "en")]
    weights, facts = chosen(asked)
    assert weights == {"default": 1.0, "en": 1.0}
    assert set(facts) == {"default", "en"}


def test_only_dev_questions_with_a_gold_passage_count() -> None:
    unanswerable = Question("u", "?", (), "d1", False, "dev", "en")
    asked = [*questions(9, "310", split="train"), unanswerable, *questions(2, "2009")]
    weights, facts = chosen(asked)
    assert weights == {"default": 0.0}
    assert facts["default"]["dev_questions"] == 2


def test_without_such_questions_both_searches_weigh_the_same() -> None:
    assert chosen(questions(9, "310", split="train")) == ({"default": 0.5}, {})
