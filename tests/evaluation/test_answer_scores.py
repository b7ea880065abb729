"""Exact match and F1 by hand: SQuAD's rules and every known trap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.evaluation.answer_scores import exact_match, token_f1

ANY_TEXT = st.text(max_size=30)


@pytest.mark.parametrize(
    ("prediction", "answers", "match", "f1"),
    [
        # SQuAD 1.1 and 2.0, worked out by hand
        ("The Denver Broncos!", ["Denver Broncos"], 1.0, 1.0),
        ("Broncos", ["Denver Broncos"], 0.0, 2 / 3),
        ("the big red dog", ["a big dog"], 0.0, 0.8),
        ("red dog", ["cat", "the dog", "big red dog"], 0.0, 0.8),
        ("dog dog dog", ["dog"], 0.0, 0.5),
        ("", [], 1.0, 1.0),
        ("something", [], 0.0, 0.0),
        ("", ["something"], 0.0, 0.0),
        ("", [""], 1.0, 1.0),
        # the known traps
        ("Zebra", ["A"], 0.0, 0.0),
        ("A", ["A"], 1.0, 1.0),
        ("", ["A"], 0.0, 0.0),
        ("the", ["A"], 0.0, 0.0),
        ("2019", ["1"], 0.0, 0.0),
        ("in 2019", ["1"], 0.0, 0.0),
        ("北京。", ["北京"], 1.0, 1.0),
        ("北京是中国的首都", ["中国的首都北京"], 0.0, 14 / 15),
        ("the captain’s “log”", ["captain's log"], 1.0, 1.0),
        ("?", ["!"], 0.0, 0.0),
        ("서울", ["서울특별시"], 0.0, 4 / 7),
        ("2019年", ["2019"], 0.0, 2 / 3),
        ("A座", ["B座"], 0.0, 0.5),
    ],
)
def test_scores_by_hand(prediction: str, answers: list[str], match: float, f1: float) -> None:
    assert exact_match(prediction, answers) == match
    assert token_f1(prediction, answers) == pytest.approx(f1, abs=1e-12)


@given(ANY_TEXT, st.lists(ANY_TEXT, max_size=3))
def test_scores_are_bounded_and_agree_about_perfection(text: str, answers: list[str]) -> None:
    match, f1 = exact_match(text, answers), token_f1(text, answers)
    assert 0.0 <= match <= f1 <= 1.0


@given(ANY_TEXT, ANY_TEXT)
def test_f1_is_symmetric(first: str, second: str) -> None:
    assert token_f1(first, [second]) == token_f1(second, [first])


@given(ANY_TEXT, st.lists(ANY_TEXT, min_size=1, max_size=3), ANY_TEXT)
def test_one_more_accepted_answer_never_hurts(text: str, answers: list[str], more: str) -> None:
    assert token_f1(text, [more, *answers]) >= token_f1(text, answers)
    assert token_f1(text, answers) == token_f1(text, answers[::-1])
