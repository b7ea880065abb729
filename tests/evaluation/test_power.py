"""Power against scipy's noncentral t, textbook numbers, and itself turned around."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rag.errors import MetricError
from rag.evaluation.power import (
    deviation_at,
    minimum_detectable_effect,
    plan,
    power_of,
    questions_needed,
    spread_of,
)


def pilot(questions: int = 300, documents: int = 30) -> tuple[np.ndarray, list[str]]:
    """Differences in points, alike within a document."""
    generator = np.random.default_rng(1)
    names = [f"d{row % documents}" for row in range(questions)]
    of_document = generator.normal(0.0, 25.0, documents)[np.arange(questions) % documents]
    return of_document + generator.choice([-100.0, 0.0, 0.0, 0.0, 100.0], questions), names


def test_the_textbook_case() -> None:
    # z: (1.959964 + 0.841621) * sd / sqrt(n); n = (2.801585 / 0.1)^2 = 784.9, one or two more by t.
    assert minimum_detectable_effect(1.0, 10**6) == pytest.approx(2.801585e-3, rel=1e-4)
    assert questions_needed(0.1, 1.0) == 787
    assert power_of(0.0, 1.0, 50) == pytest.approx(0.025)


def test_agrees_with_the_noncentral_t_distribution() -> None:
    for n, effect in ((20, 0.5), (200, 0.2)):
        bar = stats.t.ppf(0.95, n - 1)
        expected = stats.nct.sf(bar, n - 1, effect * math.sqrt(n))
        assert power_of(effect, 1.0, n, confidence=0.9) == pytest.approx(expected, rel=1e-6)


def test_effect_power_and_questions_are_one_another_turned_around() -> None:
    differences, names = pilot()
    smallest = minimum_detectable_effect(differences, clusters=names, power=0.7)
    assert power_of(smallest, differences, clusters=names) == pytest.approx(0.7, abs=1e-6)
    needed = questions_needed(smallest / 2, differences, clusters=names, power=0.7)
    assert power_of(smallest / 2, differences, needed, clusters=names) >= 0.7 - 1e-6
    assert power_of(smallest / 2, differences, needed - 1, clusters=names) < 0.7
    assert 1100 < needed < 1200  # four times 300, less a little as degrees of freedom grow
    assert power_of(1e6, differences, clusters=names) == 1.0


def test_the_design_effect_by_hand() -> None:
    # Pairs of equal differences: half as many questions as there seem to be, but for n - 1.
    vector = np.repeat(np.random.default_rng(2).normal(size=200), 2)
    names = [f"d{row // 2}" for row in range(400)]
    spread = spread_of(vector, names)
    assert spread.design_effect == pytest.approx(2.0 * (200 / 199) * (399 / 400))
    assert (spread.questions, spread.documents) == (400, 200)
    assert spread.freedom <= 199.0
    of_documents = vector[::2].std(ddof=1) / math.sqrt(200)
    assert spread.standard_error(400) == pytest.approx(of_documents)
    assert spread_of(vector).design_effect == pytest.approx(1.0)


def test_few_documents_cost_power() -> None:
    differences, names = pilot()
    clustered = minimum_detectable_effect(differences, clusters=names)
    assert clustered > 1.2 * minimum_detectable_effect(differences)
    assert spread_of(differences, names).freedom_at(600) == pytest.approx(
        2 * (spread_of(differences, names).freedom + 1) - 1
    )


def test_deviation_from_agreement() -> None:
    assert deviation_at(0.75) == 0.5
    assert deviation_at(0.0) == 1.0


def test_a_plan_says_what_a_test_set_can_show() -> None:
    differences, names = pilot(302, 28)
    made = plan(differences, names, metric="F1", gains=(3.0, 5.0))
    smallest = minimum_detectable_effect(differences, clusters=names)
    assert made.smallest_gain == pytest.approx(smallest)
    assert made.sentence() == (
        "with 302 questions of 28 documents, the smallest gain that can be shown with 80 % power "
        f"is {smallest:.1f} points of F1"
    )
    (gain, power, questions), _ = made.rows
    assert (gain, questions) == (3.0, questions_needed(3.0, differences, clusters=names))
    assert power == pytest.approx(power_of(3.0, differences, clusters=names))
    raised = plan(differences, names, metric="F1", gains=(4.0,), min_effect=1.0)
    assert raised.smallest_gain == pytest.approx(smallest + 1.0)
    assert raised.rows[0][1:] == made.rows[0][1:]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spread_of([1.0]), "two differences or more"),
        (lambda: spread_of([1.0, float("nan"), 2.0]), r"not finite in rows \[1\]"),
        (lambda: spread_of([1.0, 2.0], ["d"]), "2 rows of scores but 1 clusters"),
        (lambda: spread_of([1.0, 2.0], ["d", "d"]), "one cluster says nothing"),
        (lambda: spread_of([0.1] * 9), "9 clusters all differ by 0.1"),
        (lambda: spread_of([1, -1, -1, 1], ["a", "a", "b", "b"]), "2 clusters all differ by 0"),
        (lambda: minimum_detectable_effect(0.5), "give n"),
        (lambda: minimum_detectable_effect(-1.0, 100), "above 0, got -1"),
        (lambda: minimum_detectable_effect(1.0, 1), "two questions or more, got 1"),
        (lambda: minimum_detectable_effect(1.0, 9, power=1.0), "power must be between 0 and 1"),
        (lambda: power_of(1.0, 1.0, 9, confidence=0.0), "confidence must be between 0 and 1"),
        (lambda: power_of(-1.0, 1.0, 9), "a gain of 0 or more, got -1"),
        (lambda: questions_needed(0.0, [1.0, 2.0]), "a gain above 0, got 0"),
        (lambda: questions_needed(1e-9, [1.0, 2.0]), "no test set of practical size"),
        (lambda: deviation_at(1.0), "below 1, got 1"),
        (lambda: plan([1.0, 2.0], metric="F1", min_effect=2.0), r"gains \[1.0, 2.0\]"),
    ],
)
def test_nothing_is_predicted_from_unusable_differences(call: object, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        call()
