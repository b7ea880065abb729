"""SQuAD 1.1 and 2.0, rules written out from their definition, against ours; and where we differ.

Rules (Rajpurkar et al., 2016): lower case, ASCII punctuation deleted, the words a, an and the
deleted, white space collapsed; exact match and F1 of the best accepted answer. SQuAD 2.0 (2018)
adds "" as the answer of a question that has none; there a system may decline, with a score.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.evaluation.answer_scores import answer_scores, exact_match, token_f1
from rag.evaluation.no_answer import best_thresholds, declined

#: Of each property; enough to find what was broken on purpose, few enough to be quick.
EXAMPLES = 40

PRINTABLE = st.text(string.ascii_letters[:30] + string.digits[:3] + ".,-'\"!$ \n\t", max_size=25)
WITH_ARTICLES = st.lists(st.sampled_from(["the", "a", "An", "cat", "Cat.", "hat", "7"]), max_size=6)
TEXT = st.one_of(PRINTABLE, WITH_ARTICLES.map(" ".join))


def official_tokens(text: str) -> list[str]:
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def official_scores(prediction: str, answers: list[str]) -> tuple[float, float]:
    """Exact match and F1 in SQuAD 2.0; the same as in 1.1 where no side is empty."""
    ours = official_tokens(prediction)
    exact, f1 = 0.0, 0.0
    # Answers that normalise to nothing are dropped; a question left without any has the answer "".
    for gold in [tokens for tokens in map(official_tokens, answers) if tokens] or [[]]:
        exact = max(exact, float(ours == gold))
        common = sum((Counter(ours) & Counter(gold)).values())
        if not ours or not gold:
            f1 = max(f1, float(ours == gold))
        elif common:
            precision, recall = common / len(ours), common / len(gold)
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    return exact, f1


def is_blank_or_has_a_token(text: str) -> bool:
    return bool(official_tokens(text)) or not text.strip()


@settings(max_examples=EXAMPLES)
@given(st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=4)), min_size=1, max_size=8))
def test_ascii_answers_score_by_the_official_rules(rows: list[tuple[str, list[str]]]) -> None:
    rows = [
        (text, answers)
        for text, answers in rows
        if is_blank_or_has_a_token(text) and all(map(official_tokens, answers))
    ]
    scores = answer_scores([text for text, _ in rows], [answers for _, answers in rows])
    for (text, answers), found in zip(rows, scores.tolist(), strict=True):
        expected = official_scores(text, answers)
        assert found == pytest.approx(expected, abs=1e-12)
        assert (exact_match(text, answers), token_f1(text, answers)) == tuple(found)


DIFFERENCES = [
    # SQuAD turns these gold answers to "" and drops them, so that saying nothing is right and
    # answering with them is worth no more: a person named A, a grade, a symbol can be answers.
    ("A", ["A"], (1.0, 1.0), (1.0, 1.0)),
    ("", ["A"], (1.0, 1.0), (0.0, 0.0)),
    ("the", ["A"], (1.0, 1.0), (0.0, 0.0)),
    ("?", ["!"], (1.0, 1.0), (0.0, 0.0)),
    # An article as the whole answer to a question without one is an answer, and so wrong.
    ("the", [], (1.0, 1.0), (0.0, 0.0)),
    # SQuAD deletes ASCII punctuation alone: the curly apostrophe that a document has and the
    # straight one that a model writes would make two words of one.
    ("captain’s log", ["captain's log"], (0.0, 0.5), (1.0, 1.0)),
    ("“Sea Eagle”", ["Sea Eagle"], (0.0, 0.0), (1.0, 1.0)),
    # SQuAD splits at white space alone: a Chinese sentence is one word, all right or all wrong.
    ("北京。", ["北京"], (0.0, 0.0), (1.0, 1.0)),
    ("北京市", ["北京"], (0.0, 0.0), (0.0, 0.8)),
    # One letter with an accent can be written in two ways, a digit in two widths.
    ("Cafe\u0301", ["Café"], (0.0, 0.0), (1.0, 1.0)),
    ("２０１９", ["2019"], (0.0, 0.0), (1.0, 1.0)),
]


@pytest.mark.parametrize(("text", "answers", "official", "ours"), DIFFERENCES)
def test_where_we_differ_on_purpose(
    text: str, answers: list[str], official: tuple[float, float], ours: tuple[float, float]
) -> None:
    assert official_scores(text, answers) == pytest.approx(official)
    assert (exact_match(text, answers), token_f1(text, answers)) == pytest.approx(ours)


def official_best(
    scores: list[float], answered: list[bool], no_answer: list[float], answerable: list[bool]
) -> tuple[float, float]:
    """The search of SQuAD 2.0: from declining everything, questions are answered one by one."""
    current = best = float(answerable.count(False))
    threshold = 0.0
    for row in sorted(range(len(scores)), key=no_answer.__getitem__):
        current += scores[row] if answerable[row] else -float(answered[row])
        if current > best:
            best, threshold = current, no_answer[row]
    return 100.0 * best / len(scores), threshold


def random_run(seed: int, count: int = 60) -> tuple[list[str], list[list[str]], list[float]]:
    generator = random.Random(seed)
    names = ["Ashby", "Elgin", "Hythe", "Elgin town", "north Ashby"]
    answers = [[generator.choice(names)] * generator.choice([0, 1, 1]) for _ in range(count)]
    texts = [generator.choice([*names, "", *each]) for each in answers]
    no_answer = generator.sample([step / 1000 for step in range(1, 1000)], count)
    return texts, answers, no_answer


@pytest.mark.parametrize("seed", range(8))
def test_best_thresholds_are_those_of_the_official_search(seed: int) -> None:
    texts, answers, no_answer = random_run(seed)
    scores = answer_scores(texts, answers)
    answerable = [bool(each) for each in answers]
    given_all = np.ones(len(texts), dtype=bool)
    found = best_thresholds(scores, no_answer, np.array(answerable), given_all)
    for column, name in enumerate(("exact", "f1")):
        best, threshold = official_best(
            scores[:, column].tolist(), [bool(text) for text in texts], no_answer, answerable
        )
        assert found[f"best_{name}"] == pytest.approx(best, abs=1e-9)
        assert found[f"best_{name}_thresh"] == threshold


@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_gives_what_it_promises(seed: int) -> None:
    """Also with equal scores: no other threshold is better, and this one reaches its number."""
    texts, answers, no_answer = random_run(seed)
    no_answer = [round(score, 1) for score in no_answer]  # many are equal, some are 0
    answerable = np.array([bool(each) for each in answers])
    given_all = np.ones(len(texts), dtype=bool)
    found = best_thresholds(answer_scores(texts, answers), no_answer, answerable, given_all)

    def mean_at(threshold: float) -> np.ndarray:
        kept = [text or "" for text in declined(texts, no_answer, threshold)]
        return 100.0 * answer_scores(kept, answers).mean(axis=0)

    every = [mean_at(threshold) for threshold in [-1.0, *sorted(set(no_answer))]]
    for column, name in enumerate(("exact", "f1")):
        best = found[f"best_{name}"]
        assert best == pytest.approx(max(means[column] for means in every), abs=1e-9)
        assert mean_at(found[f"best_{name}_thresh"])[column] == pytest.approx(best, abs=1e-9)


def test_equal_scores_are_declined_together_where_the_script_parts_them() -> None:
    # Two questions of score 0.5: one right, one answered though it has no answer. The script
    # answers the first and declines the second, which no threshold does, and reports 100.
    scores = np.array([[1.0, 1.0], [0.0, 0.0]])
    answerable, given_all = np.array([True, False]), np.array([True, True])
    official, _ = official_best([1.0, 0.0], [True, True], [0.5, 0.5], [True, False])
    assert official == 100.0
    assert best_thresholds(scores, [0.5, 0.5], answerable, given_all)["best_exact"] == 50.0


def test_a_missing_prediction_cannot_be_declined() -> None:
    scores = np.zeros((2, 2))
    answerable, given = np.array([False, False]), np.array([True, False])
    assert best_thresholds(scores, [0.9, 0.9], answerable, given)["best_f1"] == 50.0
    assert declined(["x", None, "y"], [0.6, 0.6, 0.5], 0.5) == ["", None, "y"]


def test_declining_everything_has_a_threshold_that_does() -> None:
    scores, nobody = np.zeros((2, 2)), np.array([False, False])
    given_all = ~nobody
    assert best_thresholds(scores, [0.2, 0.9], nobody, given_all)["best_f1_thresh"] == 0.0
    below = best_thresholds(scores, [-3.0, 0.0], nobody, given_all)["best_f1_thresh"]
    assert below < -3.0  # 0, as the script has it, would decline nothing
