"""P-values by hand, by counting, and against scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rag.errors import MetricError
from rag.evaluation.significance import holm, mcnemar, permutation_test

DRAWN = {"resamples": 10_000, "seed": 3}


def test_permutation_by_hand() -> None:
    # 1 + 2 + 3 is matched by 2 of the 8 patterns of signs, and 3 by all but 1 + 2 - 3 = 0.
    assert permutation_test([1, 2, 3], **DRAWN) == pytest.approx(2 / 8)
    assert permutation_test([1, -1, 3], **DRAWN) == pytest.approx(6 / 8)
    assert permutation_test([0.0, 0.0], **DRAWN) == 1.0
    assert permutation_test([1, 2, 0, 0, 0], **DRAWN) == pytest.approx(2 / 4)
    # Five questions of a thousand, all one way: two patterns of 32.
    assert permutation_test([1] * 5 + [0] * 995, **DRAWN) == pytest.approx(2 / 32)


def test_clusters_change_sign_whole() -> None:
    # Documents x (1 + 2) and y (1): +-3 +-1 reaches 4 in two of four patterns.
    assert permutation_test([1, 1, 2], ["x", "y", "x"], **DRAWN) == pytest.approx(2 / 4)
    assert permutation_test([1, 2, 1, 1], ["x"] * 4, **DRAWN) == 1.0


def test_exact_permutation_agrees_with_scipy() -> None:
    differences = np.random.default_rng(1).choice([-1.0, -0.4, 0.3, 0.5, 1.0], size=12)
    theirs = stats.permutation_test(
        (differences,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert permutation_test(differences, **DRAWN) == pytest.approx(theirs.pvalue, abs=1e-12)
    counted = [
        abs(np.dot(signs, differences)) >= abs(differences.sum()) - 1e-9
        for signs in itertools.product([-1, 1], repeat=12)
    ]
    assert permutation_test(differences, **DRAWN) == pytest.approx(np.mean(counted))


def test_drawn_permutations_agree_with_scipy() -> None:
    generator = np.random.default_rng(2)
    documents = [f"d{row % 60}" for row in range(240)]
    for differences in (generator.normal(0.12, 1.0, 240), generator.choice([-1, 0, 0, 1, 1], 240)):
        sums = np.bincount(np.arange(240) % 60, weights=differences)
        theirs = stats.permutation_test(
            (sums,),
            lambda values, axis: values.mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=20_000,
            rng=np.random.default_rng(5),
        )
        ours = permutation_test(differences, documents, **DRAWN)
        error = math.sqrt(theirs.pvalue * (1 - theirs.pvalue) * (1 / 10_000 + 1 / 20_000))
        assert ours == pytest.approx(theirs.pvalue, abs=4 * error)


def test_differences_of_one_size_agree_with_the_sign_test() -> None:
    # 40 of 100 questions differ, 27 one way: a fair coin, as McNemar's test counts exactly.
    ours = np.repeat([1.0, 0.0, 1.0], [27, 13, 60])
    theirs = np.repeat([0.0, 1.0, 1.0], [27, 13, 60])
    exact = stats.binomtest(27, 40).pvalue
    assert mcnemar(ours, theirs) == pytest.approx(exact, rel=1e-12)
    drawn = permutation_test(ours - theirs, **DRAWN)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))
    assert drawn == permutation_test(ours - theirs, **DRAWN)
    assert drawn != permutation_test(ours - theirs, **{**DRAWN, "seed": 4})


def test_a_drawn_p_value_is_never_zero() -> None:
    assert permutation_test(np.ones(200), resamples=99, seed=1) == pytest.approx(1 / 100)
    distinct = np.linspace(1.0, 2.0, 200)
    assert permutation_test(distinct, resamples=99, seed=1) == pytest.approx(1 / 100)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (5, 5), (6, 0), (2, 11), (300, 240)])
def test_mcnemar_agrees_with_scipy(won: int, lost: int) -> None:
    first, second = [1] * won + [0] * lost + [1, 0], [0] * won + [1] * lost + [1, 0]
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-10)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, and never below the one before.
    found = holm({"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.02})
    assert found == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.06})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"one": 0.2}) == {"one": 0.2}
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: permutation_test([], **DRAWN), "at least one"),
        (lambda: permutation_test([1.0, float("nan")], **DRAWN), r"not finite in rows \[1\]"),
        (lambda: permutation_test([1.0, 2.0], ["d"], **DRAWN), "2 rows of scores but 1 clusters"),
        (lambda: permutation_test([1.0], resamples=0, seed=1), "resamples >= 1"),
        (lambda: mcnemar([1, 0], [1]), "2 scores of the first but 1"),
        (lambda: mcnemar([1, 0.5], [1, 0]), r"of first, rows \[1\] are \[0.5\]"),
        (lambda: mcnemar([1, 0], [float("inf"), 0]), r"second: not finite in rows \[0\]"),
        (lambda: mcnemar([], []), "at least one"),
        (lambda: holm({}), "got none"),
        (lambda: holm({"f1": float("nan"), "em": 0.5}), "f1"),
        (lambda: holm({"f1": 1.5}), "1.5"),
    ],
)
def test_nothing_is_computed_from_unusable_scores(call: object, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        call()
