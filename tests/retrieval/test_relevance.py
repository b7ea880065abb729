"""rag/retrieval/relevance.py: what counts as the passage that a question asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.records import Question
from rag.retrieval.relevance import contains, has_gold, is_relevant


def question(*answers: str, document: str | None = None, answerable: bool = True) -> Question:
    return Question("q", "?", answers, document, answerable, "dev", "en")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("built in 2009", "2009"),
        ("2009 was a good year", "2009"),
        ("It is (2009).", "2009"),
        ("in 2019, in 19", "19"),  # the second one stands alone
        ("The  Marrable\nYard", "marrable yard"),
        ("STRASSE 4", "straße 4"),
        ("berth Ｂ２", "B2"),  # full width, NFKC
        ("the ﬁrst crossing", "first"),  # a ligature, NFKC
        ("Zoe\u0308 sailed", "zoë"),  # composed and decomposed
        ("會議在北京舉行", "北京"),
        ("2019年開始", "2019年"),
        ("船長3人", "3"),
        ("会議はフェリーで", "フェリー"),
        ("페리는 서울에서 출발한다", "서울"),  # particles are written onto the noun
        ("เรือออกจากภูเก็ตทุกวัน", "ภูเก็ต"),
        ("It costs $5 today", "$5"),
        ("It is C++", "c++"),
        ("1,240 people", "1,240"),
        ("about 1240.", "1240"),
        ("240, 1,240", "240"),  # the first one stands alone
        ("2.5 knots", "2.5"),
        ("06:40", "40"),
        ("built 01.02.2009", "2009"),  # a date is no number
        ("in 2008,2009", "2009"),  # nor are two years
        ("rows 1,2,3", "2"),  # nor is a list
        ("at 192.168.0.1", "168"),
        ("共有240，5人", "5"),  # a full-width comma parts numbers
        ("(5, 6)", "5"),
        ("It was 5.", "5"),
    ],
)
def test_an_answer_is_found(text: str, answer: str) -> None:
    assert is_relevant(text, "d1", question(answer))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("built in 2009", "2019"),
        ("built in 2019", "1"),
        ("built in 2019", "19"),
        ("built in 2019", "20"),
        ("the category", "cat"),
        ("unfair", "fair"),
        ("naïveté", "naïve"),
        ("1,240 people", "240"),
        ("1,240 people", "1"),
        ("1,240,000 people", "1,240"),
        ("1,240.50 kr", "1,240"),
        ("1.240,50 kr", "240"),
        ("1'240 fr", "240"),
        ("1,00,000 rupees", "000"),
        ("2.5 knots", "5"),
        ("2.5 knots", "2"),
        ("2,5 m", "5"),
        ("共1,240人", "240"),
        ("會議在北京舉行", "東京"),
        ("anything", ""),
        ("anything", "  "),
        ("", "a"),
    ],
)
def test_an_answer_is_not_found(text: str, answer: str) -> None:
    assert not is_relevant(text, "d1", question(answer))


NUMBERS = st.integers(0, 10**10) | st.floats(0.01, 10**7).map(lambda value: round(value, 2))


@given(NUMBERS, NUMBERS, st.sampled_from(["{} people", "It is {}.", "({})", "約{}人", "{}, or so"]))
def test_a_number_is_found_as_itself_and_in_no_other(
    number: float, other: float, sentence: str
) -> None:
    """Whatever digits two numbers share, and with groups or without."""
    for written in (str(number), f"{number:,}"):
        text = sentence.format(written)
        assert contains(text, written)
        for asked in (str(other), f"{other:,}"):
            assert contains(text, asked) == (asked == written)


@given(st.text("a1,. 京é", max_size=12), st.text("a1,. 京é", max_size=4))
def test_what_is_found_is_in_the_text(text: str, answer: str) -> None:
    folded = " ".join(answer.split())
    if contains(text, answer):
        assert folded in " ".join(text.split())
    assert contains(f"{text} | {answer} | {text}", answer) == bool(folded)


def test_any_of_the_answers_will_do() -> None:
    assert is_relevant("three hundred and ten", "d1", question("310", "three hundred and ten"))
    assert not is_relevant("three hundred and ten", "d1", question("310", "311"))


def test_the_passage_has_to_be_of_the_gold_document() -> None:
    asked = question("2009", document="d1")
    assert is_relevant("built in 2009", "d1", asked)
    assert not is_relevant("built in 2009", "d2", asked)
    assert not is_relevant("built in 2010", "d1", asked)


def test_gold_is_an_answerable_question_with_answers() -> None:
    assert has_gold(question("2009"))
    assert not has_gold(question())
    assert not has_gold(question("2009", answerable=False))
