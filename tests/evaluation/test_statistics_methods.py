"""The ends of intervals, against scipy's bootstrap, Student's t and numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rag.errors import MetricError
from rag.evaluation.bleu import bleu_of
from rag.evaluation.resampling import clusters_of, resampled_sums
from rag.evaluation.statistics import Interval, Resampling, bootstrap_intervals, mean_of
from rag.evaluation.tails import (
    bca_tails,
    degrees_of_freedom,
    effective_number,
    expanded_tails,
    percentile_tails,
)


def of_columns(columns: np.ndarray, statistic: Any, method: Any, seed: int = 7) -> Interval:
    drawn = Resampling(4000, 0.9, seed, method)
    return bootstrap_intervals(columns, {"it": statistic}, None, drawn, bounds=(0.0, 1.0))["it"]


def scipy_ends(columns: np.ndarray, statistic: Any, method: str, seed: int = 7) -> Any:
    """scipy's interval of a statistic of rows, over the very resamples that we draw."""
    rows = np.arange(len(columns))

    def of_rows(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        sums = columns[np.moveaxis(drawn, axis, -1)].sum(axis=-2)
        return statistic(np.atleast_2d(sums)).reshape(sums.shape[:-1])

    ours = statistic(resampled_sums(clusters_of(columns, None), 4000, seed))
    given = stats.bootstrap((rows,), of_rows, n_resamples=2, method="percentile")
    given.bootstrap_distribution = ours
    found = stats.bootstrap(
        (rows,),
        of_rows,
        n_resamples=0,
        confidence_level=0.9,
        method=method,
        bootstrap_result=given,
    )
    return found.confidence_interval


def bleu_columns() -> np.ndarray:
    generator = np.random.default_rng(3)
    length = generator.integers(1, 7, size=(60, 1))
    totals = np.maximum(length - np.arange(4), 0)
    matches = totals * (generator.random((60, 1)) < 0.5)
    return np.hstack([length, length, matches, totals]).astype(float)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_agrees_with_scipy(method: str) -> None:
    skewed = np.random.default_rng(1).exponential(size=50)
    columns = np.column_stack([skewed, np.ones(50)])
    for given, statistic in ((columns, mean_of(0, 1)), (bleu_columns(), bleu_of)):
        ours, theirs = of_columns(given, statistic, method), scipy_ends(given, statistic, method)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_bca_of_clusters_agrees_with_scipy_of_their_sums() -> None:
    generator = np.random.default_rng(2)
    documents = [f"d{row // 4:02}" for row in range(100)]
    columns = np.column_stack([generator.random(100) ** 3, np.ones(100)])
    drawn = Resampling(4000, 0.9, 7, "bca")
    ours = bootstrap_intervals(
        columns, {"mean": mean_of(0, 1)}, documents, drawn, bounds=(0.0, 1.0)
    )["mean"]
    theirs = scipy_ends(columns.reshape(25, 4, 2).sum(axis=1), mean_of(0, 1), "BCa")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_bca_of_merged_rows_is_that_of_the_rows() -> None:
    resampled = np.random.default_rng(5).normal(0.21, 0.1, size=4000)
    influence, times = np.array([-0.1, 0.3]), np.array([30, 10])
    single = np.repeat(influence, times)
    merged = bca_tails(0.95, 0.2, resampled, influence, times)
    assert merged == pytest.approx(bca_tails(0.95, 0.2, resampled, single, np.ones(40, int)))
    below = (resampled < 0.2).mean()
    skewness = (single**3).sum() / (6 * (single**2).sum() ** 1.5)
    moved = stats.norm.ppf(below) + 1.959964
    expected = stats.norm.cdf(stats.norm.ppf(below) + moved / (1 - skewness * moved))
    assert merged[1] == pytest.approx(expected, rel=1e-6)


def test_bca_refuses_a_value_outside_its_resamples() -> None:
    with pytest.raises(MetricError, match="2 is outside all 3 resamples"):
        bca_tails(0.95, 2.0, np.array([0.0, 1.0, 1.5]), np.array([0.1, -0.1]), np.array([1, 1]))


def test_tails_by_hand() -> None:
    assert percentile_tails(0.9) == pytest.approx((0.05, 0.95))
    # t with 9 degrees of freedom: 2.262157 at 97.5 %; times sqrt(10 / 9) it is 2.384523.
    low, high = expanded_tails(0.95, 10, 9.0)
    assert low == pytest.approx(stats.norm.cdf(-2.384523), rel=1e-5)
    assert low + high == pytest.approx(1.0)


def test_an_expanded_interval_is_as_long_as_students() -> None:
    scores = np.random.default_rng(4).normal(size=25)
    columns = np.column_stack([scores, np.ones(25)])
    drawn = Resampling(40_000, 0.95, 3)
    found = bootstrap_intervals(columns, {"mean": mean_of(0, 1)}, None, drawn, bounds=(0.0, 1.0))[
        "mean"
    ]
    error = scores.std(ddof=1) / math.sqrt(25)
    student = 2 * stats.t.ppf(0.975, 24) * error
    assert found.high - found.low == pytest.approx(student, rel=0.03)


def test_the_effective_number_by_hand() -> None:
    assert effective_number(np.array([4, 4, 4])) == pytest.approx(3.0)
    assert effective_number(np.array([8, 1, 1])) == pytest.approx(100 / 66)


def test_degrees_of_freedom_by_hand() -> None:
    alike = np.ones(100, dtype=int)
    # Influence of +1 and -1 alike has the least kurtosis: only the number of clusters counts.
    even = np.array([1.0, -1.0])
    assert degrees_of_freedom(even, np.array([50, 50]), alike) == pytest.approx(99.0)
    assert degrees_of_freedom(np.zeros(100), alike, alike) == pytest.approx(99.0)
    # 4 of 1,000 clusters differ: kurtosis 250, so about 2000 / 249 degrees of freedom.
    few = degrees_of_freedom(np.array([1.0, 0.0]), np.array([4, 996]), np.ones(1000, dtype=int))
    assert few == pytest.approx(2000 / (249 + 2 / 999))
    # One document with most of the questions: no more than one degree of freedom.
    sizes = np.array([100, 1, 1, 1])
    assert degrees_of_freedom(np.ones(4), np.ones(4, dtype=int), sizes) == 1.0


def test_four_lucky_questions_are_not_called_a_gain() -> None:
    """Equal systems that differ in four questions have all four one way once in eight times."""
    gains = np.zeros(1000)
    gains[:4] = 1.0
    columns = np.column_stack([gains, np.ones(1000)])

    def low(method: Any) -> float:
        drawn = Resampling(10_000, 0.95, 1, method)
        statistic = {"gain": mean_of(0, 1)}
        return bootstrap_intervals(columns, statistic, None, drawn, bounds=(-1.0, 1.0))["gain"].low

    assert low("percentile") > 0.0  # none of the four is drawn in only exp(-4) of the resamples
    assert low("expanded") == 0.0
