"""What people are asked about: only what differs, drawn at random, sides in balance."""

from __future__ import annotations

from collections import Counter

import pytest

from rag.errors import InputError, MetricError
from rag.evaluation.review_sample import (
    answer_pairs,
    answers_digest,
    sample_pairs,
    select,
    shuffled_sides,
)
from tests.evaluation.review_case import ANSWERS, review_tables


def test_only_answers_that_differ_are_asked_about() -> None:
    pairs = answer_pairs(*review_tables())
    assert [pair.question_id for pair in pairs if pair.differs] == ["q1", "q3", "q5", "q6"]
    drawn = sample_pairs(pairs, None, seed=1)
    assert sorted(pair.question_id for pair in drawn) == ["q1", "q3", "q5", "q6"]
    assert sample_pairs(pairs, 2, seed=1) == drawn[:2]
    assert sample_pairs(pairs, 99, seed=1) == drawn


def test_every_question_is_drawn_equally_often() -> None:
    pairs = answer_pairs(*review_tables())
    drawn = Counter(sample_pairs(pairs, 1, seed=seed)[0].question_id for seed in range(800))
    assert all(150 < drawn[name] < 250 for name in ("q1", "q3", "q5", "q6"))  # 200 each, 4 sigma


def test_passages_of_both_systems_stand_in_an_order_that_tells_nothing() -> None:
    tuned, champion = review_tables()
    (pair, *_), (turned, *_) = answer_pairs(tuned, champion), answer_pairs(champion, tuned)
    assert pair.passages == ("Shared of q1.", "Of the ports.", "Of the rules.")
    assert turned.passages == pair.passages


def test_sides_are_in_balance_and_of_the_seed() -> None:
    assert Counter(shuffled_sides(10, 3)) == {"A": 5, "B": 5}
    assert shuffled_sides(10, 3) == shuffled_sides(10, 3) != shuffled_sides(10, 4)
    odd = Counter(Counter(shuffled_sides(3, seed))["A"] for seed in range(400))
    assert set(odd) == {1, 2}
    assert 150 < odd[1] < 250
    firsts = Counter(shuffled_sides(10, seed)[0] for seed in range(400))
    assert 150 < firsts["A"] < 250


def test_a_slice() -> None:
    pairs = answer_pairs(*review_tables())

    def chosen(**where: list[str]) -> list[str]:
        return [pair.question_id for pair in select(pairs, where)]

    assert chosen() == [row[0] for row in ANSWERS]
    assert chosen(document_id=["fleet", "ports"]) == ["q1", "q2", "q3", "q4"]
    assert chosen(kind=["1"], document_id=["rules"]) == ["q5", "q6"]
    assert chosen(answerable=["true"], language=["en"]) == [row[0] for row in ANSWERS]
    with pytest.raises(InputError) as caught:
        chosen(kindd=["1"])
    assert caught.value.problems == (
        "--slice kindd: no question has it; there are answerable, document_id, kind, language",
    )
    with pytest.raises(InputError, match="document_id is fleet, ports, rules"):
        chosen(document_id=["port"])


def test_other_questions_are_refused() -> None:
    tuned, champion = review_tables()
    with pytest.raises(MetricError, match="not asked the same questions: q6"):
        answer_pairs(tuned, champion.slice(0, 5))
    changed = review_tables([(*ANSWERS[0][:4], "x"), *ANSWERS[1:]])[1].to_pylist()
    changed[0]["question"] = "Another?"
    other = champion.from_pylist(changed, schema=champion.schema)
    with pytest.raises(MetricError, match="another question under the same id q1"):
        answer_pairs(tuned, other)


def test_the_digest_is_of_the_answers_alone() -> None:
    tuned, champion = review_tables()
    assert answers_digest(tuned) == answers_digest(tuned.take([5, 4, 3, 2, 1, 0]))
    assert answers_digest(tuned) != answers_digest(champion)
    spaced = [(*row[:2], f" {row[2]} ", *row[3:]) for row in ANSWERS]
    assert answers_digest(review_tables(spaced)[0]) == answers_digest(tuned)
