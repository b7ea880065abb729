"""Retrieval scores against trec_eval (by pytrec_eval), by hand, and at the edges of a run."""

from __future__ import annotations

import math
import random

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import MetricError
from rag.evaluation.ranking import (
    average_precision,
    hit_at,
    ndcg_at,
    precision_at,
    r_precision,
    recall_at,
)
from rag.evaluation.retrieval_scores import ranked_documents, retrieval_scores

Scored = dict[str, dict[str, float]]
Graded = dict[str, dict[str, int]]
CUTOFFS = (1, 3, 5, 10)
#: Our names, trec_eval's, and how its cut-offs are asked for.
SINGLE = {"mrr": "recip_rank", "map": "map", "ndcg": "ndcg", "r_precision": "Rprec"}
AT_CUTOFF = {
    "recall": ("recall_{}", "recall"),
    "precision": ("P_{}", "P"),
    "hit_rate": ("success_{}", "success"),
    "ndcg": ("ndcg_cut_{}", "ndcg_cut"),
}


def random_run(seed: int, queries: int = 30) -> tuple[Scored, Graded]:
    """Runs of 0 to 14 of 25 documents, their scores in steps of 1/4, so that many are tied."""
    generator = random.Random(seed)
    documents = [f"d{number}" for number in range(25)]
    run: Scored = {}
    judgements: Graded = {}
    for number in range(queries):
        judged = generator.sample(documents, generator.randint(1, 10))
        gains = [generator.choice([0, 1, 2, 3]) for _ in judged]
        gains[0] = generator.randint(1, 3)
        judgements[f"q{number}"] = dict(zip(judged, gains, strict=True))
        found = generator.sample(documents, generator.randint(0, 14))
        run[f"q{number}"] = {name: generator.randint(0, 8) / 4 for name in found}
    return run, judgements


def by_trec_eval(run: Scored, judgements: Graded) -> dict[str, dict[str, float]]:
    cutoffs = ",".join(map(str, CUTOFFS))
    asked = {f"{measure}.{cutoffs}" for _, measure in AT_CUTOFF.values()} | set(SINGLE.values())
    found: dict[str, dict[str, float]] = pytrec_eval.RelevanceEvaluator(judgements, asked).evaluate(
        run
    )
    return found


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_trec_eval(seed: int) -> None:
    run, judgements = random_run(seed)
    found = retrieval_scores(run, judgements, cutoffs=CUTOFFS)
    expected = by_trec_eval(run, judgements)
    names = dict(SINGLE)
    for ours, (theirs, _) in AT_CUTOFF.items():
        names |= {f"{ours}@{cutoff}": theirs.format(cutoff) for cutoff in CUTOFFS}
    assert set(found.per_query) == set(names)
    for ours, theirs in names.items():
        for query, score in zip(found.query_ids, found.per_query[ours], strict=True):
            # trec_eval says nothing of a query for which nothing was found.
            of_trec_eval = expected[query][theirs] if run[query] else 0.0
            assert score == pytest.approx(of_trec_eval, abs=1e-9), (ours, query)


def test_exponential_gains_agree_with_trec_eval() -> None:
    run, judgements = random_run(5)
    found = retrieval_scores(run, judgements, cutoffs=CUTOFFS, exponential=True)
    gained = {
        query: {name: 2**gain - 1 for name, gain in judged.items()}
        for query, judged in judgements.items()
    }
    expected = by_trec_eval(run, gained)
    for row, query in enumerate(found.query_ids):
        if run[query]:
            assert found.per_query["ndcg@5"][row] == pytest.approx(
                expected[query]["ndcg_cut_5"], abs=1e-9
            )
    linear = retrieval_scores(run, judgements, cutoffs=CUTOFFS).means["ndcg@5"]
    assert found.means["ndcg@5"] != pytest.approx(linear, abs=1e-3)


def test_one_query_by_hand() -> None:
    # Relevant at ranks 2 and 5, and one of three is not found.
    relevant = [False, True, False, False, True]
    assert [recall_at(relevant, cutoff, 3) for cutoff in (1, 2, 5)] == [0, 1 / 3, 2 / 3]
    assert [hit_at(relevant, cutoff) for cutoff in (1, 2)] == [0.0, 1.0]
    assert [precision_at(relevant, cutoff) for cutoff in (2, 5, 10)] == [1 / 2, 2 / 5, 2 / 10]
    assert average_precision(relevant, 3) == pytest.approx((1 / 2 + 2 / 5) / 3)
    assert r_precision(relevant, 3) == pytest.approx(1 / 3)
    # Gains 3 and 1 at ranks 2 and 3; the best ranking has 3, 2, 1.
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    by_hand = (3 / math.log2(3) + 1 / 2) / ideal
    assert ndcg_at([0, 3, 1], None, [1, 2, 0, 3]) == pytest.approx(by_hand, abs=1e-12)
    best_two = 7 + 3 / math.log2(3)
    by_hand = (7 / math.log2(3)) / best_two
    assert ndcg_at([0, 3, 1], 2, [1, 2, 0, 3], exponential=True) == pytest.approx(by_hand)


def test_a_query_that_was_not_run_counts_and_is_named() -> None:
    judgements = {"q1": ["a"], "q2": ["a"], "q3": ["a"], "q4": {"a": 0.0}, "q5": []}
    found = retrieval_scores({"q1": ["b", "a"], "q2": []}, judgements)
    assert found.query_ids == ("q1", "q2", "q3")
    assert found.missing == ("q2", "q3")
    assert found.without_relevant == ("q4", "q5")
    assert found.per_query["mrr"].tolist() == [0.5, 0.0, 0.0]
    assert found.means["recall@5"] == pytest.approx(1 / 3)


def test_ties_go_to_the_id_that_sorts_last() -> None:
    assert ranked_documents("q", {"a": 1.0, "c": 1.0, "b": 2.0}) == ["b", "c", "a"]
    assert ranked_documents("q", ["a", "c", "b"]) == ["a", "c", "b"]


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(MetricError, match="in the run that were never judged: q2, q3"):
        retrieval_scores({"q1": ["a"], "q2": [], "q3": []}, {"q1": ["a"]})
    with pytest.raises(MetricError, match="query q1: documents ranked twice: a"):
        retrieval_scores({"q1": ["a", "b", "a"]}, {"q1": ["a"]})
    with pytest.raises(MetricError, match="query q1: documents judged twice: a"):
        retrieval_scores({"q1": ["a"]}, {"q1": ["a", "a"]})
    with pytest.raises(MetricError, match="query q1: scores that are not finite, of documents: b"):
        retrieval_scores({"q1": {"a": 1.0, "b": math.nan}}, {"q1": ["a"]})
    for gain in (math.nan, -1.0):
        with pytest.raises(MetricError, match=r"query q1: gains must be finite .* documents: b"):
            retrieval_scores({"q1": ["a"]}, {"q1": {"a": 1.0, "b": gain}})
    with pytest.raises(MetricError, match="no query has a relevant document"):
        retrieval_scores({"q1": ["a"]}, {"q1": []})
    with pytest.raises(MetricError, match="cut-offs must be >= 1, got 0"):
        retrieval_scores({"q1": ["a"]}, {"q1": ["a"]}, cutoffs=(5, 0))
    with pytest.raises(MetricError, match="2 relevant passages retrieved, but only 1 in all"):
        average_precision([True, True], 1)
    with pytest.raises(MetricError, match="total of 0"):
        r_precision([], 0)
    with pytest.raises(MetricError, match="got nan for retrieved passage 2"):
        ndcg_at([1.0, math.nan], 5, [1.0])


RANKED = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)
JUDGED = st.dictionaries(
    st.sampled_from("abcdefghij"), st.floats(0, 4), min_size=1, max_size=10
).map(lambda gains: {**gains, "a": 1.0})


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from("uvwxyz"), st.tuples(RANKED, JUDGED), min_size=1))
def test_bounds_and_order(queries: dict[str, tuple[list[str], dict[str, float]]]) -> None:
    run = {name: ranked for name, (ranked, _) in queries.items()}
    judgements = {name: judged for name, (_, judged) in queries.items()}
    found = retrieval_scores(run, judgements)
    mirrored = retrieval_scores(
        dict(reversed(run.items())),
        {name: dict(reversed(judged.items())) for name, judged in reversed(judgements.items())},
    )
    for name, scores in found.per_query.items():
        assert (scores >= 0.0).all()
        assert (scores <= 1.0 + 1e-12).all()
        assert mirrored.per_query[name][::-1] == pytest.approx(scores, abs=1e-12)
    best = retrieval_scores(
        {
            name: {key: gain for key, gain in judged.items() if gain}
            for name, judged in judgements.items()
        },
        judgements,
    ).means
    assert best["map"] == best["mrr"] == best["r_precision"] == 1.0
    assert best["ndcg"] == pytest.approx(1.0)
