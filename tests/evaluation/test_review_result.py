"""The win rate: by hand, its interval by an independent library, samples taken together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from rag.errors import MetricError
from rag.evaluation.review_result import (
    BOOTSTRAP,
    WILSON,
    Judgement,
    human_result,
    judgements_of,
    wilson_interval,
    win_rate,
)
from rag.evaluation.review_sheet import ReviewKey
from rag.evaluation.review_verdicts import Choice, Verdict
from rag.evaluation.statistics import Interval, Resampling
from tests.evaluation.review_case import make_review

SETTINGS = Resampling(resamples=2000, confidence=0.95, seed=13)


def said(key: ReviewKey, outcomes: Mapping[str, str]) -> list[Verdict]:
    """Verdicts that mean these outcomes, by question."""
    verdicts = []
    for row in key.rows:
        outcome = outcomes[row.question_id]
        other = "B" if row.challenger == "A" else "A"
        sides: dict[str, Choice] = {"win": row.challenger, "loss": other}
        choice: Choice = sides.get(outcome, outcome)
        verdicts.append(Verdict(row.row, choice))
    return verdicts


ANN = {"q1": "win", "q3": "both_bad", "q5": "loss", "q6": "win"}
BEN = {"q1": "win", "q3": "tie", "q5": "loss", "q6": "loss"}


def judged(outcomes: Sequence[str], documents: Sequence[str | None]) -> list[Judgement]:
    return [
        Judgement(f"q{place}", document, "ann", outcome, "")
        for place, (outcome, document) in enumerate(zip(outcomes, documents, strict=True))
    ]


def test_a_result_by_hand() -> None:
    _, key = make_review()
    verdicts = {"ben": said(key, BEN), "ann": said(key, ANN)}
    by_question = {
        (item.rater, item.question_id): item.outcome for item in judgements_of(key, verdicts)
    }
    assert by_question == {
        (rater, question): outcome
        for rater, outcomes in (("ann", ANN), ("ben", BEN))
        for question, outcome in outcomes.items()
    }
    result = human_result([(key, verdicts)], SETTINGS)
    assert (result.wins, result.losses, result.ties, result.both_bad) == (3, 3, 1, 1)
    assert (result.judged, result.judgements, result.raters) == (4, 8, ("ann", "ben"))
    # q1 1, q3 .5, q5 0, q6 .5: a half. Four of six differ, two count as ties.
    assert result.win_rate_changed.value == 50.0
    assert result.win_rate.value == 50.0
    only_ann = human_result([(key, {"ann": said(key, ANN)})], SETTINGS)
    assert only_ann.win_rate_changed.value == 62.5  # (1 + .5 + 0 + 1) / 4
    assert only_ann.win_rate.value == pytest.approx((4 * 62.5 + 2 * 50.0) / 6)
    low, high = only_ann.win_rate_changed.low, only_ann.win_rate_changed.high
    assert only_ann.win_rate.low == pytest.approx((4 * low + 2 * 50.0) / 6)
    assert only_ann.win_rate.high == pytest.approx((4 * high + 2 * 50.0) / 6)
    assert only_ann.agreement is None
    assert result.agreement is not None
    assert result.agreement.observed == 50.0  # q1 and q5


def test_habit_shows_in_the_side() -> None:
    _, key = make_review()
    always_a = [Verdict(row.row, "A") for row in key.rows]
    result = human_result([(key, {"ann": always_a})], SETTINGS)
    assert result.first_shown == 100.0
    assert result.win_rate_changed.value == 50.0, "sides are in balance, so habit wins nothing"
    ties = [Verdict(row.row, "tie") for row in key.rows]
    assert human_result([(key, {"ann": ties})], SETTINGS).first_shown is None


def test_a_sample_stands_for_all_that_changed() -> None:
    """One of four was asked, and won: the others count as it does, the two alike as ties."""
    _, key = make_review(n=1)
    won = {row.question_id: "win" for row in key.rows}
    result = human_result([(key, {"ann": said(key, won)})], SETTINGS)
    assert result.judged == 1
    assert result.win_rate.value == pytest.approx((4 * 100.0 + 2 * 50.0) / 6)


def test_the_interval_is_that_of_a_cluster_bootstrap() -> None:
    outcomes = ["win"] * 9 + ["loss"] * 6 + ["tie"] * 5
    documents = [f"d{place % 7}" for place in range(20)]
    interval, method = win_rate(
        judged(outcomes, documents), replace(SETTINGS, resamples=20_000, method="percentile")
    )
    assert method == BOOTSTRAP
    assert interval.value == pytest.approx(100 * 11.5 / 20)
    scores = np.array([{"win": 1.0, "loss": 0.0, "tie": 0.5}[outcome] for outcome in outcomes])
    sums = [scores[[name == f"d{k}" for name in documents]] for k in range(7)]
    own = bootstrap(
        (np.array([part.sum() for part in sums]), np.array([float(len(part)) for part in sums])),
        lambda total, count, axis: 100 * total.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert interval.low == pytest.approx(own.low, abs=1.0)
    assert interval.high == pytest.approx(own.high, abs=1.0)


def test_where_all_say_the_same_the_interval_has_a_width() -> None:
    interval, method = win_rate(judged(["win"] * 12, [f"d{k // 2}" for k in range(12)]), SETTINGS)
    assert method == WILSON
    expected = binomtest(6, 6).proportion_ci(0.95, method="wilson")  # six documents
    assert interval.low == pytest.approx(100 * expected.low, abs=1e-9)
    assert interval.high == 100.0
    ties, method = win_rate(judged(["tie", "both_bad"] * 4, [None] * 8), SETTINGS)
    assert method == WILSON
    assert ties.low == pytest.approx(100 * binomtest(4, 8).proportion_ci(0.95, method="wilson").low)


@pytest.mark.parametrize(("k", "n", "confidence"), [(0, 5, 0.95), (3, 10, 0.9), (40, 41, 0.99)])
def test_wilson_is_that_of_scipy(k: int, n: int, confidence: float) -> None:
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    own = wilson_interval(k / n, n, confidence)
    assert (own.low, own.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_document_says_nothing_about_others() -> None:
    interval, _ = win_rate(judged(["win", "win"], ["d", "d"]), SETTINGS)
    assert interval == Interval(100.0, 0.0, 100.0)


def test_reviews_of_the_same_answers_are_taken_together() -> None:
    """Both samples count, whoever they favour; a question of both is averaged."""
    _, first = make_review(seed=1, n=2)
    _, second = make_review(seed=2, n=2)
    won = dict.fromkeys(ANN, "win")
    lost = dict.fromkeys(ANN, "loss")
    result = human_result(
        [(first, {"ann": said(first, won)}), (second, {"ann": said(second, lost)})], SETTINGS
    )
    scores: dict[str, list[float]] = {}
    for key, score in ((first, 1.0), (second, 0.0)):
        for row in key.rows:
            scores.setdefault(row.question_id, []).append(score)
    means = [sum(each) / len(each) for each in scores.values()]
    assert (result.judged, result.judgements) == (len(scores), 4)
    assert result.win_rate_changed.value == pytest.approx(100 * sum(means) / len(means))
    assert result.agreement is None


def test_nothing_judged_and_other_answers_are_refused() -> None:
    _, key = make_review()
    with pytest.raises(MetricError, match="nobody has judged yet"):
        human_result([(key, {})], SETTINGS)
    other = replace(key, review="0" * 12, challenger=replace(key.challenger, answers="x"))
    both = [(item, {"ann": said(item, ANN)}) for item in (key, other)]
    with pytest.raises(MetricError, match="compare different answers"):
        human_result(both, SETTINGS)
