"""The comparison policy, script by script, and its properties on any text."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.evaluation.normalize import answer_spans, answer_tokens, normalize_answer, text_tokens

ANY_TEXT = st.text(max_size=30)
ASCII_TEXT = st.text(string.digits + string.ascii_letters + string.punctuation + "  ", max_size=40)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Sea Eagle", "sea eagle"),
        ("  an   apple. ", "apple"),
        ("Another theme", "another theme"),
        ("U.S.A.", "usa"),
        ("well-known", "wellknown"),
        ("$1,000.50", "100050"),
        ("don’t", "dont"),
        ("“quoted”", "quoted"),
        ("don't", "dont"),
        ("A", "a"),
        ("The", "the"),
        ("?", "?"),
        ("...", "..."),
        ("", ""),
        (" \n", ""),
        ("\u200b", ""),
        ("北京。", "北京"),
        ("北京 大学", "北京大学"),
        ("「東京」", "東京"),
        ("２０１９年", "2019年"),
        ("iPhone 手机", "iphone手机"),
        ("维生素 A", "维生素a"),
        ("ｶﾞｽ", "ガス"),
        ("ﬁn", "fin"),
        ("Cafe\u0301", "café"),
        ("СТРЕЛА!", "стрела"),
        ("€5", "€5"),
    ],
)
def test_normalized_by_hand(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("2019年1月", ["2019", "年", "1", "月"]),
        ("서울 특별시", ["서", "울", "특", "별", "시"]),
        ("กำลัง", ["ก", "ำ", "ลั", "ง"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("GPT-4模型", ["gpt4", "模", "型"]),
    ],
)
def test_tokens_of_each_script(text: str, tokens: list[str]) -> None:
    assert answer_tokens(text) == tokens


def test_text_tokens_split_where_answer_tokens_delete() -> None:
    text = "The well-known captain’s log: $5"
    assert text_tokens(text) == ["the", "well", "known", "captain", "s", "log", "5"]
    assert answer_tokens(text) == ["wellknown", "captains", "log", "5"]


@given(ANY_TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize_answer(text)
    assert normalize_answer(once) == once
    assert answer_tokens(once) == answer_tokens(text)


@given(ANY_TEXT, ANY_TEXT)
def test_equal_tokens_are_equal_normalised_texts(first: str, second: str) -> None:
    equal = normalize_answer(first) == normalize_answer(second)
    assert equal == (answer_tokens(first) == answer_tokens(second))


@given(ASCII_TEXT)
def test_printable_ascii_follows_the_squad_rules(text: str) -> None:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    expected = re.sub(r"\b(?:the|an|a)\b", " ", bare).split()
    if expected:  # the rules strip some answers to nothing; ours never do
        assert answer_tokens(text) == expected


@given(ASCII_TEXT)
def test_only_blank_text_has_no_token(text: str) -> None:
    assert bool(answer_tokens(text)) == bool(text.strip())


def test_spans_of_an_answer_are_whole_tokens() -> None:
    text = "In 2019 the “Sea  Eagle” sailed; the sea eagle, 1 of 3."
    assert [text[start:end] for start, end in answer_spans(text, ["The Sea Eagle"])] == [
        "the “Sea  Eagle",
        "the sea eagle",
    ]
    assert [text[start:end] for start, end in answer_spans(text, ["1", "2019"])] == ["2019", "1"]
    assert answer_spans(text, ["9", "eag", ""]) == []


def test_spans_in_chinese_and_overlaps_are_merged() -> None:
    text = "首都是北京大学城。"
    assert answer_spans(text, ["北京", "京大学"]) == [(3, 7)]


@given(ANY_TEXT, ANY_TEXT)
def test_spans_lie_in_the_text(text: str, answer: str) -> None:
    last = 0
    for start, end in answer_spans(text, [answer]):
        assert last <= start < end <= len(text)
        last = end
