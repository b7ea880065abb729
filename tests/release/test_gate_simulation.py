"""The gate against releases of known quality: how often is it right?

1,000 resamples a decision, in place of the 10,000 of params.yaml, keep this short; which way a
decision falls changes in less than one of a hundred (benchmarks/gate_honesty.py has both).
"""

from __future__ import annotations

import math
from collections import Counter

import pytest

from rag.evaluation.power import power_of, spread_of
from rag.params import GateParams
from rag.release.gate import Outcome, decide
from tests.simulated_releases import TestSet, quality_of_gain, true_gain

pytestmark = pytest.mark.integration

TEST_SET = TestSet(documents=40, questions=5)
PARAMS = GateParams(
    min_effect=1.0,
    floors={"f1": 30.0},
    guards={"exact_match": 5.0, "recall@5": 2.0},
    resamples=1000,
    cost=None,
)


def outcomes(gain: float, pairs: int) -> Counter[Outcome]:
    """What the gate says of so many pairs whose challenger is better by `gain` points of F1."""
    quality = (quality_of_gain(gain) if gain else 0.0, 0.0)
    return Counter(
        decide(*TEST_SET.tables(quality, seed), {}, PARAMS, seed=seed).outcome
        for seed in range(pairs)
    )


def test_equal_releases_are_hardly_ever_promoted() -> None:
    """By the count of 1,000; at no `min_effect` the bound would still be half of 5 %."""
    found = outcomes(0.0, 1000)
    assert found[Outcome.PROMOTE] <= 50
    assert found[Outcome.ERROR] == 0


@pytest.mark.parametrize("loss", [5.0, 10.0])
def test_losers_are_never_promoted(loss: float) -> None:
    found = outcomes(-loss, 200)
    assert found[Outcome.PROMOTE] == found[Outcome.ERROR] == 0


def test_winners_are_promoted_as_often_as_predicted() -> None:
    """By 3 points more than `min_effect`; two standard errors are left to the draw."""
    gain, pairs = PARAMS.min_effect + 3.0, 300
    quality = (quality_of_gain(gain), 0.0)
    assert true_gain(quality) == pytest.approx(gain, abs=0.05)
    large = TestSet(documents=2000, questions=TEST_SET.questions)
    first, second = large.scores(quality, seed=-1 % 2**32)
    owners = [f"d{place // large.questions}" for place in range(large.size)]
    spread = spread_of(100.0 * (first - second), owners)
    predicted = power_of(gain - PARAMS.min_effect, spread, TEST_SET.size)
    promoted = outcomes(gain, pairs)[Outcome.PROMOTE] / pairs
    error = math.sqrt(predicted * (1.0 - predicted) / pairs)
    assert promoted >= predicted - 2.0 * error
