"""Wordings, refusals, and what is taken from a generated text."""

from __future__ import annotations

import pytest

from rag.reading.prompts import clean_answer, is_refusal, passages_part, question_part


def test_what_questions_share_comes_first_and_the_question_last() -> None:
    shared = passages_part(["One.", "Two."])
    assert shared.startswith("Answer in a few words copied from the text, or say unanswerable.")
    assert shared.endswith("\n\nOne.\n\nTwo.\n\n")
    assert passages_part([]) == "Answer in a few words, or say unanswerable.\n\n"
    assert question_part("Who?") == "Question: Who?"


def test_braces_in_a_text_are_no_placeholders() -> None:
    assert passages_part(["{question} {0}"]).endswith("\n\n{question} {0}\n\n")
    assert question_part("{passages}?") == "Question: {passages}?"


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("unanswerable", True),
        (" Unanswerable. ", True),
        ("UNANSWERABLE", True),
        ("unanswerable question", False),
        ("not unanswerable", False),
        ("", False),
    ],
)
def test_is_refusal(text: str, refused: bool) -> None:
    assert is_refusal(text) is refused


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
