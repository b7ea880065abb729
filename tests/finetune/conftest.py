"""Questions with the passages that a reader is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from rag.finetune.examples import ReadingExample
from rag.records import Passage, Question


@pytest.fixture
def example() -> Callable[..., ReadingExample]:
    """An example from its question, its passages' texts and its answers."""

    def make(text: str, passages: Sequence[str], *answers: str) -> ReadingExample:
        question = Question(f"id of {text}", text, answers, None, bool(answers), "train", "en")
        shown = tuple(Passage(f"c{i}", "d", part, 1.0, i) for i, part in enumerate(passages, 1))
        return ReadingExample(question, shown, answers[0] if answers else "")

    return make
