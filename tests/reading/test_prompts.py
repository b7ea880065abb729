"""Wordings in every language, examples, refusals, and what is taken from a generated text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from rag.corpus.text import language_of
from rag.reading.prompts import (
    PROMPT_VERSION,
    REFUSAL,
    WORDINGS,
    Example,
    Wording,
    clean_answer,
    conversation,
    flat,
    is_refusal,
    prompt_version,
)

ENGLISH = "Answer in a few words copied from the text, or say unanswerable."
CHINESE = "请用文中的原话简短回答；如果文中没有答案，请只回答 unanswerable。"
FERRY = Example("Who sails?", ("Marlow sails.",), "Marlow")
PAINT = Example("Which paint?", ("Red.", "Blue."), "")


def test_the_english_prompt_letter_for_letter() -> None:
    told = conversation("Who?", ["One.", "Two."])
    assert told.turns == ()
    assert told.shared == f"{ENGLISH}\n\nOne.\n\nTwo.\n\n"
    assert told.own == "Question: Who?"
    assert flat(told) == (told.shared, "Question: Who?\nAnswer:")


def test_a_closed_book_has_no_passages() -> None:
    told = conversation("Who?", [])
    assert told.shared + told.own == "Answer in a few words, or say unanswerable.\n\nQuestion: Who?"


@pytest.mark.parametrize(
    ("question", "begins", "asks"),
    [
        ("谁指挥这艘船？", "请用文中的原话", "问题：谁指挥这艘船？\n回答："),
        ("船長は誰ですか？", "本文の語句を", "質問：船長は誰ですか？\n答え："),
        ("선장은 누구입니까?", "본문에 있는 말을", "질문: 선장은 누구입니까?\n답:"),
        ("Кто капитан?", "Ответьте кратко", "Вопрос: Кто капитан?\nОтвет:"),
        ("من هو القبطان؟", "أجب بإيجاز", "السؤال: من هو القبطان؟\nالجواب:"),
        (
            "Wer ist der Kapitän?",
            "Answer in a few words",
            "Question: Wer ist der Kapitän?\nAnswer:",
        ),
        ("Ποιος είναι;", "Answer in a few words", "Question: Ποιος είναι;\nAnswer:"),
        ("42?", "Answer in a few words", "Question: 42?\nAnswer:"),
    ],
)
def test_the_language_is_that_of_the_question(question: str, begins: str, asks: str) -> None:
    shared, own = flat(conversation(question, ["An English text."]))
    assert shared.startswith(begins)
    assert shared.endswith("\n\nAn English text.\n\n")
    assert own == asks
    assert conversation(question, []).own == asks.partition("\n")[0]


def test_every_wording_is_in_its_language_and_names_the_one_word_for_refusing() -> None:
    assert set(WORDINGS) == {"en", "zh", "ja", "ko", "ru", "ar"}
    for language, wording in WORDINGS.items():
        for text in (wording.passages, wording.no_passages):
            assert text.count(REFUSAL) == 1
            assert language_of(text.replace(REFUSAL, "").replace("{passages}", "")) == language
        assert wording.question.endswith("{question}")
        assert wording.answer.endswith("{answer}")


def test_examples_are_earlier_turns_in_their_order() -> None:
    told = conversation("Who?", ["One."], [FERRY, PAINT])
    assert told.turns == (
        (f"{ENGLISH}\n\nMarlow sails.\n\nQuestion: Who sails?", "Marlow"),
        (f"{ENGLISH}\n\nRed.\n\nBlue.\n\nQuestion: Which paint?", "unanswerable"),
    )
    assert (told.shared, told.own) == (f"{ENGLISH}\n\nOne.\n\n", "Question: Who?")


def test_without_a_chat_template_examples_are_blocks_in_front() -> None:
    assert flat(conversation("Who?", ["One."], [FERRY])) == (
        f"{ENGLISH}\n\nMarlow sails.\n\nQuestion: Who sails?\nAnswer: Marlow\n\n"
        f"{ENGLISH}\n\nOne.\n\n",
        "Question: Who?\nAnswer:",
    )
    assert flat(conversation("谁？", ["一。"], [PAINT])) == (
        f"{CHINESE}\n\nRed.\n\nBlue.\n\n问题：Which paint?\n回答：unanswerable\n\n"
        f"{CHINESE}\n\n一。\n\n",
        "问题：谁？\n回答：",
    )


def test_questions_about_the_same_passages_share_all_but_the_question() -> None:
    first, second = (flat(conversation(text, ["One."], [FERRY])) for text in ("Who?", "When?"))
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_braces_in_a_text_are_no_placeholders() -> None:
    told = conversation("{passages}?", ["{question} {0}"], [Example("{}", (), "{answer}")])
    assert told.shared.endswith("\n\n{question} {0}\n\n")
    assert told.own == "Question: {passages}?"
    assert "\nAnswer: {answer}\n\n" in flat(told)[0]


def test_the_version_is_of_these_wordings() -> None:
    assert prompt_version(WORDINGS) == PROMPT_VERSION
    assert len(PROMPT_VERSION) == 12


@pytest.mark.parametrize("language", sorted(WORDINGS))
@pytest.mark.parametrize("name", [field.name for field in fields(Wording)])
def test_any_other_wording_is_another_version(language: str, name: str) -> None:
    wording = WORDINGS[language]
    changed = replace(wording, **{name: f"{getattr(wording, name)}!"})
    assert prompt_version({**WORDINGS, language: changed}) != PROMPT_VERSION


def test_other_words_for_refusing_are_another_version() -> None:
    assert prompt_version(WORDINGS, [REFUSAL]) != PROMPT_VERSION


def capitals(text: str) -> str:
    return text.upper()


@pytest.mark.parametrize("written", [str, capitals, "{}.".format, "  {}。 ".format])
@pytest.mark.parametrize(
    "word",
    [
        "unanswerable",
        "无法回答",
        "回答不能",
        "답할 수 없음",
        "невозможно ответить",
        "لا يمكن الإجابة",
    ],
)
def test_refusals_of_every_language(word: str, written: Callable[[str], str]) -> None:
    assert is_refusal(written(word))


@pytest.mark.parametrize("text", ["unanswerable question", "not unanswerable", "无法", "ответ", ""])
def test_other_texts_are_no_refusal(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("the red office", "the red office"),
        (" the red office.\nQuestion: next", "the red office"),
        ('"Gannet"', "Gannet"),
        ("\n\nGannet\n", "Gannet"),
        ("and so on...", "and so on..."),
        ("5.2", "5.2"),
        ("U.S.", "U.S"),
        ("北京。", "北京。"),
        ("", ""),
        (".", ""),
    ],
)
def test_clean_answer(text: str, answer: str) -> None:
    assert clean_answer(text) == answer
