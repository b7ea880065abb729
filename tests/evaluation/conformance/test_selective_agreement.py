"""Risk, coverage, AURC and thresholds by hand and by their definitions, computed the long way."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import MetricError
from rag.evaluation.selective import (
    aurc,
    best_aurc,
    best_threshold,
    coverage_at_risk,
    excess_aurc,
    risk_coverage,
)


def aurc_by_definition(confidence: list[float], losses: list[float]) -> float:
    """The mean over questions of the mean loss of those at least as confident."""
    risks = []
    for own in confidence:
        answered = [loss for other, loss in zip(confidence, losses, strict=True) if other >= own]
        risks.append(sum(answered) / len(answered))
    return sum(risks) / len(risks)


def random_answers(seed: int, size: int) -> tuple[list[float], list[float]]:
    """Confidences in steps of 1/8, so that many are tied, and losses of 0, 1 or between."""
    generator = random.Random(seed)
    confidence = [generator.randint(-8, 8) / 8 for _ in range(size)]
    return confidence, [generator.choice([0.0, 1.0, generator.random()]) for _ in range(size)]


def test_curve_by_hand() -> None:
    # In order of confidence: right, then two tied of which one is right, then wrong.
    curve = risk_coverage([0.8, 0.1, 0.9, 0.8], [1.0, 1.0, 0.0, 0.0])
    assert curve.coverage.tolist() == [1 / 4, 3 / 4, 1.0]
    assert curve.risk.tolist() == pytest.approx([0.0, 1 / 3, 1 / 2])
    assert curve.threshold.tolist() == [0.9, 0.8, 0.1]
    assert curve.per_example.tolist() == pytest.approx([1 / 3, 1 / 2, 0.0, 1 / 3])


def test_aurc_by_hand() -> None:
    # Right, wrong, right, wrong: risks 0, 1/2, 1/3, 1/2.
    confidence, losses = [4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 0.0, 1.0]
    assert aurc(confidence, losses) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4, abs=1e-12)
    # At best right, right, wrong, wrong: risks 0, 0, 1/3, 1/2.
    assert best_aurc(losses) == pytest.approx((1 / 3 + 1 / 2) / 4, abs=1e-12)
    assert excess_aurc(confidence, losses) == pytest.approx((1 / 2) / 4, abs=1e-12)
    # The middle two tied: both count the risk of three answers.
    tied = [4.0, 3.0, 3.0, 1.0]
    assert aurc(tied, losses) == pytest.approx((0 + 2 / 3 + 1 / 2) / 4, abs=1e-12)
    # A confidence that says nothing leaves the risk of all.
    assert aurc([0.5] * 4, losses) == pytest.approx(1 / 2, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_aurc_agrees_with_its_definition(seed: int) -> None:
    confidence, losses = random_answers(seed, 60)
    assert len(set(confidence)) < 20
    expected = aurc_by_definition(confidence, losses)
    assert aurc(confidence, losses) == pytest.approx(expected, abs=1e-9)


def test_best_aurc_is_the_least_of_all_orders() -> None:
    losses = [0.0, 1.0, 0.3, 1.0, 0.0]
    least = min(
        aurc_by_definition(list(order), losses)
        for order in itertools.product(range(5), repeat=5)  # with ties
    )
    assert best_aurc(losses) == pytest.approx(least, abs=1e-12)


def test_coverage_at_risk_by_hand() -> None:
    confidence, losses = [5.0, 4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 0.0, 0.0, 1.0]
    # Risks 0, 1/2, 1/3, 1/4, 2/5: the curve goes up and comes down again.
    assert coverage_at_risk(confidence, losses, 0.0) == pytest.approx(1 / 5)
    assert coverage_at_risk(confidence, losses, 0.3) == pytest.approx(4 / 5)
    assert coverage_at_risk(confidence, losses, 0.4) == pytest.approx(1.0)
    assert coverage_at_risk(confidence, [1.0, *losses[1:]], 0.1) == 0.0


def test_best_threshold_by_hand() -> None:
    # Probabilities of "no answer" .1 .2 .6 .9; the third has no answer and the system gave one.
    found = best_threshold([-0.1, -0.2, -0.6, -0.9], [1.0, 0.5, 0.0, 0.2], [0.0, 0.0, 1.0, 0.0])
    # Declining all scores 1; answering one 2, two 2.5, three 1.5, four 1.7.
    assert found.score == pytest.approx(2.5 / 4)
    assert found.threshold == -0.2


def test_best_threshold_may_be_to_decline_all() -> None:
    found = best_threshold([0.9, 0.8], [0.0, 0.0], [1.0, 1.0])
    assert (found.score, found.threshold) == (1.0, math.inf)


def test_best_threshold_takes_tied_answers_together() -> None:
    # Alone the first would gain; no threshold keeps it and declines the second.
    found = best_threshold([0.5, 0.5], [1.0, 0.0], [0.0, 1.0])
    assert (found.score, found.threshold) == (0.5, math.inf)


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_agrees_with_trying_each(seed: int) -> None:
    confidence, losses = random_answers(seed, 40)
    generator = random.Random(seed + 100)
    declined = [float(generator.random() < 0.4) for _ in confidence]
    scores = [0.0 if silent else 1.0 - loss for silent, loss in zip(declined, losses, strict=True)]

    def mean_at(threshold: float) -> float:
        rows = zip(confidence, scores, declined, strict=True)
        return sum(score if sure >= threshold else no for sure, score, no in rows) / len(scores)

    candidates = [math.inf, *sorted(set(confidence), reverse=True)]
    found = best_threshold(confidence, scores, declined)
    assert found.score == pytest.approx(max(map(mean_at, candidates)), abs=1e-9)
    assert mean_at(found.threshold) == pytest.approx(found.score, abs=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(MetricError, match=f"confidence: .*found {bad} in row 1"):
        risk_coverage([0.5, bad], [0.0, 1.0])
    with pytest.raises(MetricError, match=f"loss: .*found {bad} in row 0"):
        aurc([0.5, 0.4], [bad, 1.0])
    with pytest.raises(MetricError, match=f"score of declining: .*found {bad} in row 0"):
        best_threshold([0.5], [1.0], [bad])


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(MetricError, match="2 confidences but 1 losses"):
        aurc([0.5, 0.4], [1.0])
    with pytest.raises(MetricError, match=r"loss: .*between 0 and 1, found 1\.5 in row 1"):
        aurc([0.5, 0.4], [1.0, 1.5])
    with pytest.raises(MetricError, match="one value a question"):
        aurc([], [])
    with pytest.raises(MetricError, match="the risk must be between 0 and 1, got nan"):
        coverage_at_risk([0.5], [0.0], math.nan)


ANSWERS = st.lists(
    st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5]), st.floats(0, 1)), min_size=1, max_size=12
)


@settings(max_examples=30, deadline=None)
@given(ANSWERS, st.randoms())
def test_bounds_and_order(answers: list[tuple[float, float]], generator: random.Random) -> None:
    confidence, losses = np.array(answers).T
    area = aurc(confidence, losses)
    curve = risk_coverage(confidence, losses)
    assert losses.min() <= area <= losses.max() + 1e-12
    assert best_aurc(losses) <= area + 1e-12
    assert curve.coverage[-1] == 1.0
    assert curve.risk[-1] == pytest.approx(losses.mean(), abs=1e-12)
    generator.shuffle(answers)
    shuffled = np.array(answers).T
    assert aurc(*shuffled) == pytest.approx(area, abs=1e-12)
