"""Intervals by hand, against theory, and by simulation."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from rag.errors import MetricError
from rag.evaluation.statistics import Interval, bootstrap_interval, paired_bootstrap

SETTINGS = {"resamples": 10000, "confidence": 0.95, "seed": 5}


def interval(scores: object, clusters: list[str] | None = None, **changes: object) -> Interval:
    return bootstrap_interval(scores, clusters, **{**SETTINGS, **changes})


def test_two_questions_by_hand() -> None:
    # Drawn twice from {0, 1}: means 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    assert interval([0, 1]) == Interval(0.5, 0.0, 1.0)
    assert interval([0, 1], confidence=0.4, method="percentile") == Interval(0.5, 0.5, 0.5)
    # t with one degree of freedom, times sqrt(2): 40 % leave out 15 % of the normal on each side.
    assert interval([0, 1], confidence=0.4) == Interval(0.5, 0.0, 1.0)


def test_clusters_are_drawn_whole_by_hand() -> None:
    # Documents x (three right) and y (one wrong): means 1, 3/4 and 0, never anything else.
    scores, documents = [1, 1, 0, 1], ["x", "x", "y", "x"]
    assert interval(scores, documents) == Interval(0.75, 0.0, 1.0)
    narrow = interval(scores, documents, confidence=0.4, method="percentile")
    assert narrow == Interval(0.75, 0.75, 0.75)


def test_agrees_with_the_normal_approximation() -> None:
    scores = np.random.default_rng(0).normal(0.5, 0.1, size=2000)
    found = interval(scores, resamples=20000)
    error = scores.std() / math.sqrt(len(scores))
    assert found.value == pytest.approx(scores.mean())
    assert found.low == pytest.approx(scores.mean() - 1.96 * error, abs=0.05 * error)
    assert found.high == pytest.approx(scores.mean() + 1.96 * error, abs=0.05 * error)


def test_same_seed_same_interval_and_order_of_documents_does_not_matter() -> None:
    scores = np.random.default_rng(1).random(50)
    documents = [f"d{row // 3}" for row in range(50)]
    found = interval(scores, documents)
    assert found == interval(scores, documents)
    assert found != interval(scores, documents, seed=6)
    turned = interval(scores[::-1], documents[::-1])
    assert turned.low == pytest.approx(found.low, abs=1e-12)
    assert turned.high == pytest.approx(found.high, abs=1e-12)


def covered(clustered: bool) -> float:
    """Share of 95 % intervals that hold the true mean 0.5, with 40 documents of 5 questions."""
    generator = np.random.default_rng(11)
    documents = [f"d{row // 5}" for row in range(200)]
    hits = 0
    for trial in range(300):
        levels = np.repeat(generator.beta(2, 2, size=40), 5)
        scores = (generator.random(200) < levels).astype(float)
        found = interval(scores, documents if clustered else None, resamples=800, seed=trial)
        hits += found.low <= 0.5 <= found.high
    return hits / 300


def test_intervals_cover_the_truth_when_documents_are_drawn() -> None:
    assert 0.92 <= covered(clustered=True) <= 0.98
    assert covered(clustered=False) < 0.92


def test_paired_difference_and_its_sign() -> None:
    generator = np.random.default_rng(3)
    champion = generator.random(300)
    better = champion + 0.02 * generator.random(300)
    gain = paired_bootstrap(better, champion, **SETTINGS)
    loss = paired_bootstrap(champion, better, **SETTINGS)
    assert 0.0 < gain.low < gain.value < gain.high
    assert (loss.low, loss.value) == pytest.approx((-gain.high, -gain.value), abs=1e-3)
    assert paired_bootstrap(champion, champion, **SETTINGS) == Interval(0.0, 0.0, 0.0)


def test_equal_systems_are_rarely_called_different() -> None:
    generator = np.random.default_rng(4)
    wrong = 0
    for trial in range(200):
        pair = generator.random((2, 150)) < 0.6
        found = paired_bootstrap(pair[0], pair[1], **{**SETTINGS, "resamples": 800, "seed": trial})
        wrong += not found.low <= 0.0 <= found.high
    assert wrong <= 16


def test_one_document_says_nothing_about_others() -> None:
    assert interval([1, 0, 1, 1], ["d"] * 4) == Interval(0.75, 0.0, 1.0)
    assert paired_bootstrap([1], [0], ["d"], **SETTINGS) == Interval(1.0, -1.0, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval([]), "at least one row"),
        (lambda: interval([0.5, float("nan")]), r"not finite in rows \[1\]"),
        (lambda: interval([0.5, 1.0], ["d"]), "2 rows of scores but 1 clusters"),
        (lambda: interval([0.5], resamples=0), "resamples >= 1"),
        (lambda: interval([0.5], confidence=1.0), "between 0 and 1"),
        (lambda: interval([0.5], method="basic"), "one of expanded, percentile, bca, got 'basic'"),
        (lambda: paired_bootstrap([1.0], [1.0, 0.0], **SETTINGS), "challenger scores but"),
    ],
)
def test_nothing_is_computed_from_unusable_scores(call: object, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        call()


def test_ten_thousand_resamples_of_a_thousand_questions_are_quick() -> None:
    scores = np.random.default_rng(6).random(1000)
    start = time.process_time()
    interval(scores)
    assert time.process_time() - start < 1.0
