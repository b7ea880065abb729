"""When an answer is given, and the threshold below which it is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rag.reading.abstention import checked, choose_threshold, is_supported
from rag.records import Answer, Evidence


def answer(text: str, score: float = -0.5, *passages: str, abstained: bool = False) -> Answer:
    evidence = tuple(Evidence("c", "d", passage, 1.0, 1) for passage in passages or (f"<{text}>",))
    return Answer(text, score, abstained, evidence)


def right(prediction: str, gold: Sequence[str]) -> float:
    return float(prediction in gold if gold else not prediction)


@pytest.mark.parametrize(
    ("given", "threshold"),
    [
        (answer("Marlow", -0.5, "Under Captain MARLOW."), None),
        (answer("Marlow", -0.5, "no", "Marlow"), -0.5),
        (answer("two  words", -0.5, "Two\nwords"), -0.6),
        (answer("北京", -0.5, "在北京。"), None),
    ],
)
def test_an_answer_in_a_passage_and_confident_is_given(
    given: Answer, threshold: float | None
) -> None:
    assert is_supported(given)
    assert checked(given, threshold) == given


@pytest.mark.parametrize(
    ("given", "threshold"),
    [
        (answer("Marlow", -0.5, "Under Captain Pell."), None),
        (Answer("Marlow", -0.5, False, ()), None),
        (answer("Marlow", -0.5, "Marlow"), -0.4),
        (answer("", -0.5, "Marlow"), None),
        (answer("Marlow", -0.5, "Marlow", abstained=True), None),
    ],
)
def test_otherwise_the_system_abstains_and_shows_the_passages(
    given: Answer, threshold: float | None
) -> None:
    declined = checked(given, threshold)
    assert (declined.text, declined.abstained) == ("", True)
    assert (declined.score, declined.evidence) == (given.score, given.evidence)


def test_threshold_by_hand() -> None:
    """By confidence: wrong where there is no answer (-3), right (-2), the same (-1.5), right (-1).

    Abstaining below -3 gains one, below -2 loses it again, below -1.5 gains it again; the first
    of the two equal ones is taken, halfway to its neighbour.
    """
    answers = [answer("a", -1.0), answer("b", -3.0), answer("c", -2.0), answer("d", -1.5)]
    gold = [["a"], [], ["c"], []]
    assert choose_threshold(answers, gold, right) == -2.5


def test_the_threshold_with_the_largest_gain_wins() -> None:
    answers = [answer("a", -4.0), answer("b", -3.0), answer("c", -2.0), answer("d", -1.0)]
    gold = [[], ["b"], [], []]
    assert choose_threshold([*answers, answer("e", -0.5)], [*gold, ["e"]], right) == -0.75


@pytest.mark.parametrize(
    "gold",
    [
        [["a"], ["b"]],  # every answer is right
        [["x"], ["b"]],  # a wrong answer is no worse than none
        [["a"], []],  # the wrong one is the more confident
    ],
)
def test_no_threshold_where_none_is_better(gold: list[list[str]]) -> None:
    assert choose_threshold([answer("a", -2.0), answer("b", -1.0)], gold, right) is None


def test_the_most_confident_answer_is_always_given() -> None:
    """No threshold lies above it: a reader that is always wrong is a matter for the gate."""
    assert choose_threshold([answer("a", -2.0), answer("b", -1.0)], [[], []], right) == -1.5
    assert choose_threshold([answer("a", -2.0)], [[]], right) is None


def test_equal_confidences_cannot_be_told_apart() -> None:
    answers = [answer("a", -1.0), answer("b", -1.0), answer("c", -0.5)]
    assert choose_threshold(answers, [[], ["b"], ["c"]], right) is None
    assert choose_threshold(answers, [[], [], ["c"]], right) == -0.75


def test_unsupported_answers_gain_nothing_by_a_threshold() -> None:
    """They are not given anyway."""
    answers = [answer("a", -2.0, "no text"), answer("b", -1.0)]
    assert choose_threshold(answers, [[], ["b"]], right) is None


def test_no_dev_answers_no_threshold() -> None:
    assert choose_threshold([], [], right) is None
