"""Kappa: by hand, by Fleiss' own example, and as scikit-learn computes it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from rag.errors import MetricError
from rag.evaluation.review_agreement import (
    agreement_of,
    cohen_kappa,
    fleiss_kappa,
    observed_agreement,
)
from rag.evaluation.review_verdicts import CHOICES


def test_cohen_by_hand() -> None:
    """Of 50 grants 20 were wanted by both readers and 15 by neither: Cohen's kappa is .4.

    Observed 35/50; by chance 25/50 * 30/50 + 25/50 * 20/50 = 1/2.
    """
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert observed_agreement(first, second) == 0.7
    assert cohen_kappa(first, second) == pytest.approx(0.4, abs=1e-15)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(CHOICES), st.sampled_from(CHOICES)), min_size=2))
def test_cohen_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    first, second = map(list, zip(*pairs, strict=True))
    own = cohen_kappa(first, second)
    if len({*first, *second}) == 1:
        assert own is None
    else:
        assert own == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)


def test_fleiss_by_his_example() -> None:
    """The much used table of 14 raters, 10 subjects and 5 categories: kappa is .210."""
    table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    subjects = [[str(kind) for kind in range(5) for _ in range(row[kind])] for row in table]
    ratings = [list(rater) for rater in zip(*subjects, strict=True)]
    assert fleiss_kappa(ratings) == pytest.approx(0.20993, abs=5e-6)
    # Who said what among the raters does not matter to it.
    generator = np.random.default_rng(1)
    shuffled = [list(generator.permutation(row)) for row in subjects]
    again = fleiss_kappa([list(rater) for rater in zip(*shuffled, strict=True)])
    assert again == pytest.approx(fleiss_kappa(ratings), abs=1e-12)


def test_agreement_of_two_and_of_three() -> None:
    said = {"ann": ["A", "A", "B", "B"], "ben": ["A", "A", "B", "A"], "cy": ["A", "A", "B", "B"]}
    two = agreement_of({name: said[name] for name in ("ann", "ben")})
    assert two is not None
    assert (two.n, two.observed, two.kappa, two.pairwise) == (4, 75.0, 0.5, 0.5)
    three = agreement_of(said)
    assert three is not None
    assert three.raters == ("ann", "ben", "cy")
    # Pairs: ann-ben .5, ann-cy 1, ben-cy .5.
    assert three.pairwise == pytest.approx(2 / 3)
    assert three.observed == pytest.approx(100 * (0.75 + 1.0 + 0.75) / 3)
    # Observed (3 + 1/3) / 4 = 5/6; 7 A and 5 B of 12: chance (49 + 25) / 144; 23/35.
    assert three.kappa == pytest.approx(23 / 35)


def test_where_chance_is_certain_kappa_is_undefined() -> None:
    same = agreement_of({"ann": ["A", "A"], "ben": ["A", "A"]})
    assert same is not None
    assert (same.observed, same.kappa, same.pairwise) == (100.0, None, None)
    assert fleiss_kappa([["tie"] * 3] * 4) is None
    assert agreement_of({"ann": ["A", "B"]}) is None


def test_raters_of_different_questions_are_refused() -> None:
    with pytest.raises(MetricError, match="same questions, got 2 with 1, 2 verdicts"):
        cohen_kappa(["A"], ["A", "B"])
    with pytest.raises(MetricError, match="got 2 with 0 verdicts"):
        observed_agreement([], [])
