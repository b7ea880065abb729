"""rag/retrieval/fusion.py: scores and weights worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.retrieval.fusion import Candidate, Fusion, choose_dense_weight, fuse, reciprocal_rank

#: Dense 0.9, 0.5, 0.1 scale to 1, 0.5, 0; BM25 2, 10, 4 to 0, 1, 0.25.
CANDIDATES = [Candidate("a", 0.9, 2.0), Candidate("b", 0.5, 10.0), Candidate("c", 0.1, 4.0)]


def ids(candidates: list[Candidate], weight: float) -> list[str]:
    return [candidates[position].chunk_id for position, _ in fuse(candidates, weight)]


def test_scores_by_hand() -> None:
    """At 0.6: a 0.6, b 0.6 · 0.5 + 0.4 · 1 = 0.7, c 0.4 · 0.25 = 0.1."""
    found = fuse(CANDIDATES, 0.6)
    assert [position for position, _ in found] == [1, 0, 2]
    assert [score for _, score in found] == pytest.approx([0.7, 0.6, 0.1])


def test_the_ends_are_the_rankings_of_one_search() -> None:
    assert ids(CANDIDATES, 1.0) == ["a", "b", "c"]
    assert ids(CANDIDATES, 0.0) == ["b", "c", "a"]


def test_a_candidate_that_a_search_did_not_return_has_its_lowest_score() -> None:
    """Dense 0.8, 0.4, - scales to 1, 0, 0; BM25 -, 3, 6 to 0, 0, 1."""
    found = [Candidate("a", 0.8, None), Candidate("b", 0.4, 3.0), Candidate("c", None, 6.0)]
    assert fuse(found, 0.75) == [(0, 0.75), (2, 0.25), (1, 0.0)]


def test_a_search_that_found_nothing_leaves_the_other() -> None:
    found = [Candidate("a", 0.2, None), Candidate("b", 0.4, None), Candidate("c", 0.3, None)]
    assert fuse(found, 0.5) == [(1, 0.5), (2, pytest.approx(0.25)), (0, 0.0)]


def test_one_hit_has_the_whole_score() -> None:
    found = [Candidate("a", 0.2, None), Candidate("b", 0.1, 7.0)]
    assert fuse(found, 0.25) == [(1, 0.75), (0, 0.25)]


def test_equal_scores_are_ordered_by_id() -> None:
    found = [Candidate(name, 0.5, 1.0) for name in ("c", "a", "b")]
    assert ids(found, 0.3) == ["a", "b", "c"]


def test_nothing_found_is_nothing_ranked() -> None:
    assert fuse([], 0.5) == []


SCORES = st.floats(-10, 10, allow_nan=False) | st.none()


@given(st.lists(st.tuples(SCORES, SCORES), max_size=8), st.floats(0, 1))
def test_every_candidate_is_ranked_once_between_0_and_1(
    scores: list[tuple[float | None, float | None]], weight: float
) -> None:
    found = fuse([Candidate(f"c{i}", *pair) for i, pair in enumerate(scores)], weight)
    assert sorted(position for position, _ in found) == list(range(len(scores)))
    values = [score for _, score in found]
    assert values == sorted(values, reverse=True)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in values)


def test_reciprocal_rank_by_hand() -> None:
    assert reciprocal_rank(["a", "b", "c"], frozenset("bc")) == 0.5
    assert reciprocal_rank(["a", "b", "c"], frozenset("z")) == 0.0
    assert reciprocal_rank([], frozenset("a")) == 0.0


def crossing(dense: float) -> list[Candidate]:
    """Two candidates: "good" leads BM25, "bad" leads dense; they meet at weight 0.5."""
    return [Candidate("good", 0.0, dense), Candidate("bad", dense, 0.0)]


def test_the_curve_by_hand() -> None:
    """Question 1 is answered by the leader of dense, question 2 by BM25's, question 3 by none.

    A tie at 0.5 is won by "bad", the smaller id.
    """
    gold = [frozenset({"bad"}), frozenset({"good"}), frozenset({"other"})]
    _, curve = choose_dense_weight([crossing(1.0)] * 3, gold, (0.0, 0.5, 1.0))
    third = pytest.approx((1 + 0.5 + 0) / 3)
    assert curve == {0.0: third, 0.5: third, 1.0: third}


def test_the_best_weight_is_taken() -> None:
    found = [CANDIDATES, crossing(1.0)]
    gold = [frozenset({"b"}), frozenset({"bad"})]
    # b leads below 2/3 (0.5 w + 1 - w = w there), "bad" from 0.5 on: both at 0.6 only.
    weight, curve = choose_dense_weight(found, gold, (0.0, 0.3, 0.6, 0.9))
    assert weight == 0.6
    assert curve == {0.0: 0.75, 0.3: 0.75, 0.6: 1.0, 0.9: 0.75}


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_plateau_the_centre_is_taken(order: int) -> None:
    """ "good" leads below 0.5: 0.0 to 0.4 are equally good, whatever order they are tried in."""
    weights = [i / 10 for i in range(11)][::order]
    weight, curve = choose_dense_weight([crossing(2.0)], [frozenset({"good"})], weights)
    assert [value for value, mrr in sorted(curve.items()) if mrr == 1.0] == [0, 0.1, 0.2, 0.3, 0.4]
    assert weight == 0.2


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "retrieve" / "fusion.json"
    fusion = Fusion({"default": 0.4, "zh": 0.1})
    fusion.write(path, chosen_on={"zh": {"dev_questions": 30}})
    assert Fusion.read(path) == fusion
    assert json.loads(path.read_text()) == {
        "dense_weight": {"default": 0.4, "zh": 0.1},
        "chosen_on": {"zh": {"dev_questions": 30}},
    }


def test_a_language_without_a_weight_has_the_default() -> None:
    fusion = Fusion({"default": 0.4, "zh": 0.1})
    assert [fusion.weight(language) for language in ("zh", "sv", "default")] == [0.1, 0.4, 0.4]
    assert Fusion().weight("en") == 0.5
