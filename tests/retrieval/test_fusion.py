"""rag/retrieval/fusion.py: scores, ranks and rules worked out by hand."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.retrieval.fusion import (
    Candidates,
    Fusion,
    FusionRule,
    first_relevant_rank,
    fuse,
    mean_best_bm25,
)

NAN = float("nan")


def candidates(**scores: tuple[float, float]) -> Candidates:
    """(dense, BM25) of each chunk; NaN is a score that is missing."""
    names = sorted(scores)
    return Candidates(
        tuple(names),
        np.array([scores[name][0] for name in names]),
        np.array([scores[name][1] for name in names]),
    )


THREE = candidates(a=(0.9, 2.0), b=(0.5, 10.0), c=(0.1, 4.0))


def ranked(found: Candidates, rule: FusionRule) -> dict[str, float]:
    """Chunk to score, best first."""
    order, scores = fuse(found, rule)
    return {
        found.ids[position]: score
        for position, score in zip(order.tolist(), scores.tolist(), strict=True)
    }


def test_a_weighted_sum_by_hand() -> None:
    """At 0.6 and scale 10: a 0.54 + 0.08, b 0.3 + 0.4, c 0.06 + 0.16."""
    found = ranked(THREE, FusionRule(0.6, bm25_scale=10.0))
    assert list(found) == ["b", "a", "c"]
    assert found == pytest.approx({"b": 0.70, "a": 0.62, "c": 0.22})


@pytest.mark.parametrize("method", ["weighted", "rrf"])
def test_the_ends_are_the_rankings_of_one_search(method: str) -> None:
    assert list(ranked(THREE, FusionRule(1.0, method))) == ["a", "b", "c"]  # type: ignore[arg-type]
    assert list(ranked(THREE, FusionRule(0.0, method))) == ["b", "c", "a"]  # type: ignore[arg-type]


def test_the_scale_decides_how_much_a_bm25_score_counts() -> None:
    """b leads a as long as 0.5 · 8 / scale exceeds 0.5 · 0.4: below a scale of 20."""
    assert next(iter(ranked(THREE, FusionRule(bm25_scale=19.0)))) == "b"
    assert next(iter(ranked(THREE, FusionRule(bm25_scale=21.0)))) == "a"


def test_a_candidate_that_a_search_did_not_return_has_its_lowest_score() -> None:
    found = candidates(a=(0.8, NAN), b=(0.4, 3.0), c=(NAN, 6.0))
    # a 0.75 · 0.8 + 0.25 · 3/6, c 0.75 · 0.4 + 0.25 · 6/6, b 0.75 · 0.4 + 0.25 · 3/6
    assert ranked(found, FusionRule(0.75, bm25_scale=6.0)) == pytest.approx(
        {"a": 0.725, "c": 0.55, "b": 0.425}
    )


def test_a_search_that_found_nothing_leaves_the_other() -> None:
    found = candidates(a=(0.2, NAN), b=(0.4, NAN), c=(0.3, NAN))
    assert ranked(found, FusionRule(0.5)) == pytest.approx({"b": 0.2, "c": 0.15, "a": 0.1})
    assert list(ranked(found, FusionRule(0.5, "rrf"))) == ["b", "c", "a"]


def test_reciprocal_ranks_by_hand() -> None:
    """k = 60; a is 1st and 3rd, b 2nd and 1st, c 3rd and 2nd, d in dense search alone."""
    found = candidates(a=(0.9, 2.0), b=(0.5, 10.0), c=(0.1, 4.0), d=(0.05, NAN))
    w = Fraction(3, 4)
    expected = {
        "b": w / 62 + (1 - w) / 61,
        "a": w / 61 + (1 - w) / 63,
        "c": w / 63 + (1 - w) / 62,
        "d": w / 64,
    }
    scores = ranked(found, FusionRule(0.75, "rrf", rrf_k=60))
    assert scores == pytest.approx({name: float(value) for name, value in expected.items()})
    assert list(scores) == sorted(expected, key=lambda name: -expected[name])


def test_bm25_of_zero_is_no_rank() -> None:
    """A chunk known to share no term is not the last hit: it is none."""
    zero = candidates(a=(0.9, 0.0), b=(0.5, 10.0))
    missing = candidates(a=(0.9, NAN), b=(0.5, 10.0))
    rule = FusionRule(0.3, "rrf")
    assert ranked(zero, rule) == ranked(missing, rule)


def test_equal_scores_share_the_better_rank() -> None:
    """b and c are both 2nd, d is 4th; without dense scores the sum is one part."""
    found = candidates(a=(0.9, NAN), b=(0.5, NAN), c=(0.5, NAN), d=(0.1, NAN))
    assert ranked(found, FusionRule(1.0, "rrf", rrf_k=1)) == pytest.approx(
        {"a": 1 / 2, "b": 1 / 3, "c": 1 / 3, "d": 1 / 5}
    )


def cormack(rankings: dict[str, float], lists: list[list[str]], k: int) -> dict[str, float]:
    """RRF as the paper writes it, over lists of ids, each with a weight."""
    scores: dict[str, float] = {}
    for weight, ranking in zip(rankings.values(), lists, strict=True):
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + weight / (k + rank)
    return scores


NAMES = st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=8)


@given(NAMES, NAMES, st.floats(0, 1), st.integers(1, 100))
def test_rrf_is_that_of_the_paper(dense: list[str], bm25: list[str], weight: float, k: int) -> None:
    """Scores that fall with the rank; the paper's sum knows ranks alone."""
    found = Candidates.of(
        {name: 1.0 - rank / 20 for rank, name in enumerate(dense)},
        {name: 30.0 - rank for rank, name in enumerate(bm25)},
    )
    expected = cormack({"dense": weight, "bm25": 1 - weight}, [dense, bm25], k)
    assert ranked(found, FusionRule(weight, "rrf", rrf_k=k)) == pytest.approx(expected)


def test_equal_scores_are_ordered_by_id() -> None:
    found = candidates(c=(0.5, 1.0), a=(0.5, 1.0), b=(0.5, 1.0))
    for rule in (FusionRule(0.3), FusionRule(0.3, "rrf")):
        assert list(ranked(found, rule)) == ["a", "b", "c"]


def test_nothing_found_is_nothing_ranked() -> None:
    for rule in (FusionRule(), FusionRule(method="rrf")):
        assert ranked(Candidates.of({}, {}), rule) == {}


def test_candidates_are_the_union_by_id() -> None:
    found = Candidates.of({"b": 0.2, "a": 0.4}, {"c": 7.0, "a": 5.0})
    assert found.ids == ("a", "b", "c")
    np.testing.assert_array_equal(found.dense, [0.4, 0.2, NAN])
    np.testing.assert_array_equal(found.bm25, [5.0, NAN, 7.0])
    complete = Candidates.of({"b": 0.2}, {"c": 7.0}, absent=0.0)
    np.testing.assert_array_equal(complete.bm25, [0.0, 7.0])


SCORES = st.floats(-10, 10, allow_nan=False) | st.just(NAN)


@given(
    st.lists(st.tuples(SCORES, SCORES), max_size=8),
    st.floats(0, 1),
    st.sampled_from(["weighted", "rrf"]),
)
def test_every_candidate_is_ranked_once_and_scores_fall(
    scores: list[tuple[float, float]], weight: float, method: str
) -> None:
    found = candidates(**{f"c{i}": pair for i, pair in enumerate(scores)})
    rule = FusionRule(weight, method)  # type: ignore[arg-type]
    order, values = fuse(found, rule)
    assert sorted(order.tolist()) == list(range(len(scores)))
    assert np.isfinite(values).all()
    assert (np.diff(values) <= 0).all()


def test_the_first_relevant_rank_by_hand() -> None:
    """At dense alone: a, b, c."""
    rule = FusionRule(1.0)
    assert first_relevant_rank(THREE, rule, np.array([False, True, True])) == 2
    assert first_relevant_rank(THREE, rule, np.array([False, False, False])) is None


def test_the_mean_of_the_best_bm25_scores() -> None:
    """10 and 4; a question that shares no term with any chunk says nothing."""
    nothing = candidates(a=(0.3, NAN))
    assert mean_best_bm25([THREE, candidates(a=(0.1, 4.0), b=(0.2, NAN)), nothing]) == 7.0
    assert mean_best_bm25([nothing]) == FusionRule().bm25_scale
    assert mean_best_bm25([]) == FusionRule().bm25_scale


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "retrieve" / "fusion.json"
    fusion = Fusion(
        {
            "default": FusionRule(0.4, bm25_scale=17.5, rrf_k=10),
            "zh": FusionRule(0.1, "rrf", rrf_k=10),
        },
        reranker="5a" * 32,
    )
    fusion.write(path, chosen_on={"zh": {"dev_questions": 30}})
    assert Fusion.read(path) == fusion
    assert json.loads(path.read_text()) == {
        "method": {"default": "weighted", "zh": "rrf"},
        "dense_weight": {"default": 0.4, "zh": 0.1},
        "bm25_scale": {"default": 17.5, "zh": 20.0},
        "rrf_k": 10,
        "reranker": "5a" * 32,
        "chosen_on": {"zh": {"dev_questions": 30}},
    }


def test_a_language_without_a_rule_has_the_default() -> None:
    fusion = Fusion({"default": FusionRule(0.4), "zh": FusionRule(0.1)})
    assert [fusion.rule(name).dense_weight for name in ("zh", "sv", "default")] == [0.1, 0.4, 0.4]
    assert Fusion().rule("en") == FusionRule(0.5)
