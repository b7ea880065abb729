"""rag/retrieval/tuning.py: which questions choose the rule, and what makes a rule safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rag.params import RetrieveParams
from rag.records import Chunk, Question, Split
from rag.retrieval.fusion import Candidates, FusionRule
from rag.retrieval.index_payload import StoredPassage
from rag.retrieval.tuning import MIN_QUESTIONS, choose_fusion, gold_documents

#: Dense finds a chunk of the gold document that lacks the answer, or BM25 does.
CHUNKS = [
    Chunk("dense", "d1", 0, "The Petrel carries 310.", 6),
    Chunk("terms", "d1", 1, "The Petrel was built in 2009.", 7),
]
#: At scale 5 "dense" leads from 0.5 on (0.9 w + 0.2 (1 - w) against 0.1 w + 1 - w; tied there).
FOUND = Candidates.of({"dense": 0.9, "terms": 0.1}, {"dense": 1.0, "terms": 5.0})
#: Both searches put the same chunk first.
AGREED = Candidates.of({"dense": 0.9, "terms": 0.1}, {"dense": 5.0, "terms": 1.0})


def questions(
    count: int, answer: str, language: str = "en", split: Split = "dev", document: str | None = "d1"
) -> list[Question]:
    return [
        Question(f"{language}{i}", "?", (answer,), document, True, split, language)
        for i in range(count)
    ]


def find_passages(ids: Sequence[str]) -> Mapping[str, StoredPassage]:
    by_id = {chunk.chunk_id: chunk for chunk in CHUNKS}
    return {
        name: StoredPassage(name, by_id[name].document_id, by_id[name].text, "", "", "", {})
        for name in ids
    }


def nothing_to_find(ids: Sequence[str]) -> Mapping[str, StoredPassage]:
    raise AssertionError(f"{ids} need not be looked up")


def chosen(
    asked: list[Question],
    found: Sequence[Candidates] | None = None,
    *,
    weights: tuple[float, ...] = (0.0, 0.25, 0.75, 1.0),
    fusion: str = "weighted",
    **more: Any,
) -> tuple[dict[str, FusionRule], dict[str, Any]]:
    params = RetrieveParams(dense_weights=weights, fusion=fusion, **more)  # type: ignore[arg-type]
    found = [FOUND] * len(asked) if found is None else found
    documents = gold_documents(asked)
    chunks = [chunk for chunk in CHUNKS if chunk.document_id in documents]
    known = all(question.document_id for question in asked)
    result, facts = choose_fusion(
        asked, found, chunks, nothing_to_find if known else find_passages, params
    )
    return dict(result.rules), facts["chosen_on"]


def weights_of(rules: Mapping[str, FusionRule]) -> dict[str, float]:
    return {language: rule.dense_weight for language, rule in rules.items()}


def test_the_search_that_finds_the_answer_is_taken() -> None:
    rules, facts = chosen(questions(3, "2009"))
    assert rules == {"default": FusionRule(0.0, bm25_scale=5.0)}
    assert facts == {
        "default": {
            "dev_questions": 3,
            "bm25": {"mrr": 1.0, "recall@1": 1.0},
            "dense": {"mrr": 0.5, "recall@1": 0.0},
            "chosen": {"mrr": 1.0, "recall@1": 1.0},
            "mrr": {"weighted": {"0.0": 1.0, "0.25": 1.0, "0.75": 0.5, "1.0": 0.5}},
        }
    }
    assert weights_of(chosen(questions(3, "310"))[0]) == {"default": 1.0}


def mixture(dense_right: int, bm25_right: int) -> tuple[list[Question], list[Candidates]]:
    """Questions that one search gets wrong by a little, where the other one is sure.

    At scale 10 (of bm25's best scores) and weight 0.5 each has the right chunk, "terms", first.
    """
    dense = Candidates.of({"dense": 0.1, "terms": 0.9}, {"dense": 10.0, "terms": 9.0})
    bm25 = Candidates.of({"dense": 0.6, "terms": 0.5}, {"dense": 1.0, "terms": 10.0})
    found = [dense] * dense_right + [bm25] * bm25_right
    return questions(len(found), "2009"), found


def test_a_mixture_that_is_surely_better_is_taken() -> None:
    """Each search is right in half of 40 questions, the mixture in all."""
    rules, facts = chosen(*mixture(20, 20), weights=(0.0, 0.5, 1.0))
    assert weights_of(rules) == {"default": 0.5, "en": 0.5}
    assert facts["en"]["mrr"] == {"weighted": {"0.0": 0.75, "0.5": 1.0, "1.0": 0.75}}
    assert rules["en"].bm25_scale == 10.0


@pytest.mark.parametrize(("better", "weight"), [(3, 0.0), (6, 0.5)])
def test_a_gain_of_few_questions_is_no_evidence(better: int, weight: float) -> None:
    """Of 40 questions the mixture gains 0.75 on each of 3, or of 6, over BM25, which leads dense.

    3: mean 0.056, error 0.75 · sqrt(0.075 · 0.925 / 39) = 0.0316, so 0.056 - 0.063 < 0.
    6: mean 0.1125, error 0.75 · sqrt(0.15 · 0.85 / 39) = 0.0429, so 0.1125 - 0.0858 > 0.
    """
    rules, _ = chosen(*mixture(better, 40 - better), weights=(0.0, 0.5, 1.0))
    assert rules["en"].dense_weight == weight


def test_of_equal_weights_one_search_alone_is_safest() -> None:
    """0 and 0.25 rank alike: nothing speaks for the mixture."""
    assert weights_of(chosen(questions(3, "2009"))[0]) == {"default": 0.0}
    weights = (1.0, 0.75, 0.5, 0.25, 0.0)
    assert weights_of(chosen(questions(3, "2009"), weights=weights)[0]) == {"default": 0.0}


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_plateau_the_centre_is_taken(order: int) -> None:
    """Where both searches agree all weights are equal; so are those without the ends."""
    weights = tuple(i / 10 for i in range(11))[::order]
    asked = questions(3, "310")
    assert weights_of(chosen(asked, [AGREED] * 3, weights=weights)[0]) == {"default": 0.5}
    inner = (0.1, 0.2, 0.3, 0.4, 0.9)[::order]
    assert weights_of(chosen(questions(3, "2009"), weights=inner)[0]) == {"default": 0.3}


def test_rrf_is_chosen_where_ranks_are_what_counts() -> None:
    """BM25 scores a wrong chunk far above the right one, which is second; dense has it first.

    At the only inner weight, 0.75, the sum is led by the wrong chunk (0.25 · 4 against 0.75), and
    by ranks the right one leads. A second kind of question is BM25's alone.
    """
    wild = Candidates.of({"dense": 0.0, "terms": 1.0}, {"dense": 40.0, "terms": 1.0})
    plain = Candidates.of({"dense": 0.0, "terms": 0.0}, {"dense": 0.1, "terms": 0.2})
    found = [wild] * 10 + [plain] * 30
    asked = questions(40, "2009")
    rules, facts = chosen(asked, found, weights=(0.0, 0.75, 1.0), fusion="auto")
    assert (rules["en"].method, rules["en"].dense_weight, rules["en"].rrf_k) == ("rrf", 0.75, 60)
    assert set(facts["en"]["mrr"]["weighted"]) == {"0.0", "0.75", "1.0"}
    assert facts["en"]["mrr"]["rrf"] == {"0.75": 1.0}


def test_the_method_of_the_params_is_kept() -> None:
    for fusion in ("weighted", "rrf"):
        rules, facts = chosen(questions(3, "310"), fusion=fusion, rrf_k=7)
        assert rules["default"].method == fusion
        assert rules["default"].rrf_k == 7
        assert set(facts["default"]["mrr"]) == {fusion}


def test_the_gold_document_need_not_be_known() -> None:
    known = chosen(questions(3, "2009", document="d1"))
    unknown = chosen(questions(3, "2009", document=None))
    assert known == unknown


def test_only_documents_of_the_questions_that_count_are_needed() -> None:
    asked = [
        *questions(1, "310", document="d1"),
        *questions(1, "310", document="d2", split="train"),
        *questions(1, "310", document=None),
        Question("u", "?", (), "d3", False, "dev", "en"),
    ]
    assert gold_documents(asked) == {"d1"}


def test_a_language_has_its_own_rule_from_enough_questions_on() -> None:
    asked = [*questions(MIN_QUESTIONS, "2009", "zh"), *questions(MIN_QUESTIONS + 30, "310", "en")]
    rules, facts = chosen(asked)
    assert weights_of(rules) == {"default": 1.0, "en": 1.0, "zh": 0.0}
    assert {language: fact["dev_questions"] for language, fact in facts.items()} == {
        "default": 70,
        "en": 50,
        "zh": 20,
    }


def test_a_language_with_fewer_shares_the_rule_of_all() -> None:
    asked = [*questions(MIN_QUESTIONS - 1, "2009", "zh"), *questions(60, "310", "en")]
    rules, facts = chosen(asked)
    assert weights_of(rules) == {"default": 1.0, "en": 1.0}
    assert set(facts) == {"default", "en"}


def test_only_dev_questions_with_a_gold_passage_count() -> None:
    unanswerable = Question("u", "?", (), "d1", False, "dev", "en")
    asked = [*questions(9, "310", split="train"), unanswerable, *questions(2, "2009")]
    rules, facts = chosen(asked)
    assert weights_of(rules) == {"default": 0.0}
    assert facts["default"]["dev_questions"] == 2


@pytest.mark.parametrize("fusion", ["auto", "weighted", "rrf"])
def test_without_such_questions_both_searches_weigh_the_same(fusion: str) -> None:
    rules, facts = chosen(questions(9, "310", split="train"), fusion=fusion)
    method = "rrf" if fusion == "rrf" else "weighted"
    assert rules == {"default": FusionRule(0.5, method)}
    assert facts == {}
