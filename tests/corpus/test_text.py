"""Unwrapping, words, languages and sentence boundaries."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.corpus.sentences import sentence_spans
from rag.corpus.text import language_of, normalized_question, plain_text, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n\nthree", "one two\n\nthree"),
        ("北京是\n首都", "北京是首都"),
        ("한국\n사람", "한국 사람"),
        ("- first\n  goes on\n- second", "- first goes on\n- second"),
        ("## Fares\nAn adult\npays", "## Fares\nAn adult pays"),
        ("| a | b |\n| c | d |", "| a | b |\n| c | d |"),
        ("see\n```\nx = 1\ny = 2\n```\nend", "see\n```\nx = 1\ny = 2\n```\nend"),
        ("  a\u00a0 b\t c \r\n", "a b c"),
        ("cafe\u0301", "caf\u00e9"),
        ("\ufeffa\x00b\u00adc", "abc"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("", ""),
    ],
)
def test_plain_text_joins_wrapped_lines_only(text: str, expected: str) -> None:
    assert plain_text(text) == expected


@given(st.text() | st.text(alphabet="ab `~#-|1.中\n", max_size=60))
def test_plain_text_is_stable_and_keeps_every_letter(text: str) -> None:
    once = plain_text(text)
    assert plain_text(once) == once
    letters = filter(str.isalnum, unicodedata.normalize("NFC", text))
    assert list(filter(str.isalnum, once)) == list(letters)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where does Petrel berth?", "en"),
        ("北京在哪里", "zh"),
        ("BBC和CNN哪个电视台先成立", "zh"),
        ("東京はどこですか", "ja"),
        ("서울은 어디에 있습니까", "ko"),
        ("Где находится порт", "ru"),
        ("أين الميناء", "ar"),
        ("Πού είναι το λιμάνι", "el"),
        ("06:40", "und"),
        ("", "und"),
    ],
)
def test_language_follows_the_commonest_script(text: str, language: str) -> None:
    assert language_of(text) == language


def test_a_chinese_character_is_a_word_and_a_run_of_letters_is_one() -> None:
    assert words("Berth 3, 北京 MRPT4") == ["Berth", "3", "北", "京", "MRPT4"]


def test_questions_are_equal_without_case_punctuation_and_width() -> None:
    assert normalized_question("Who built  Petrel?") == normalized_question("who built petrel")
    assert normalized_question("谁建造了它？") == normalized_question("谁建造了它")
    assert normalized_question("Who built Gannet?") != normalized_question("Who built Petrel?")
    assert normalized_question("???") == "???"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("She sails. He stays.", ["She sails.", "He stays."]),
        ('"Stop!" he said. Then he left.', ['"Stop!" he said.', "Then he left."]),
        ("Mr. J. R. Pell met Dr. Osk. They left.", ["Mr. J. R. Pell met Dr. Osk.", "They left."]),
        ("Use berth No. 5. Say no. Then go.", ["Use berth No. 5.", "Say no.", "Then go."]),
        ("It costs 3.5 kr, e.g. for Petrel.", ["It costs 3.5 kr, e.g. for Petrel."]),
        ("Is it late? Yes! Go (now.) Run.", ["Is it late?", "Yes!", "Go (now.)", "Run."]),
        ("1. Stop the engine. 2. Ring.", ["1. Stop the engine.", "2. Ring."]),
        ("北京是首都。他说：“走吧！”然后走了。", ["北京是首都。", "他说：“走吧！”", "然后走了。"]),
        ("「そうだ。」と言った。はい", ["「そうだ。」", "と言った。", "はい"]),
        ("真的!走吧", ["真的!", "走吧"]),
        ("Mr.\nPell", ["Mr.", "Pell"]),
        ("one \n two", ["one", "two"]),
        ("no end", ["no end"]),
    ],
)
def test_sentence_boundaries(text: str, sentences: list[str]) -> None:
    assert [text[start:end].strip() for start, end in sentence_spans(text)] == sentences


@given(st.text(alphabet="ab A.!?。！”\"') \n\t\u3000…1中", max_size=60))
def test_sentences_cover_the_text_without_gap_or_overlap(text: str) -> None:
    spans = sentence_spans(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(text[start:end].strip() for start, end in spans) or not text.strip()
