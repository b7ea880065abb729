"""The gate's guards, each on a case worked out by hand, and the records that it must refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from rag.params import BudgetParams, CostParams, GateParams, SliceParams
from rag.release.comparison import suite_version
from rag.release.cost import CostSample
from rag.release.decision import Check, Decision, Outcome
from rag.release.gate import Context, decide
from tests.release.test_gate import BAD, GOOD, MIDDLING, PARAMS, passage, predictions

WON, LOST = predictions(GOOD), predictions(BAD)


def judge(
    challenger: pa.Table = WON,
    champion: pa.Table = LOST,
    context: Context | None = None,
    **changes: Any,
) -> Decision:
    params = PARAMS.model_copy(update=changes)
    return decide(challenger, champion, {}, params, seed=1, context=context)


def failed(decision: Decision) -> list[tuple[str, str]]:
    return [(check.name, check.metric) for check in decision.checks if not check.passed]


def test_a_guard_that_may_have_lost_is_not_enough_evidence() -> None:
    """F1 gains 50 points; exact match -5 +- 12 may or may not have lost more than 2."""
    f1 = {"f1": [0.9] * 40}
    challenger = predictions([1.0] * 9 + [0.0] * 11 + [1.0] * 20, **f1)
    champion = predictions([0.0] * 9 + [1.0] * 11 + [1.0] * 20, f1=[0.4] * 40)
    decision = judge(challenger, champion)
    assert decision.outcome is Outcome.INCONCLUSIVE
    assert failed(decision) == [("guard against champion", "exact_match")]


SLICED = ["fr"] * 12 + ["en"] * 28
SLICES = SliceParams(by=("language",), guards={"f1": 10.0}, min_questions=10)


def of_slices(french: float, english: float, **changes: Any) -> Decision:
    challenger = predictions([french] * 12 + [english] * 28, language=SLICED)
    champion = predictions([0.5] * 40, language=SLICED)
    return judge(challenger, champion, guards={}, slices=SLICES.model_copy(update=changes))


def test_a_gain_overall_does_not_pay_for_a_slice_that_lost() -> None:
    decision = of_slices(french=0.2, english=0.9)
    assert decision.outcome is Outcome.REJECT
    assert failed(decision) == [("slice language=fr against champion", "f1")]
    assert "f1 -30.0 points against champion on slice language=fr" in decision.reasons[0]
    assert of_slices(french=0.45, english=0.9).outcome is Outcome.PROMOTE, "5 points are allowed"


def test_a_small_slice_is_reported_and_decides_only_where_it_may() -> None:
    decision = of_slices(french=0.2, english=0.9, min_questions=13)
    assert decision.outcome is Outcome.PROMOTE
    (note,) = decision.notes
    assert "12 questions are fewer than min_questions (13)" in note
    (check,) = [check for check in decision.checks if check.name.startswith("slice language=fr")]
    assert (check.passed, check.conclusive, check.decides) == (False, False, False)
    blocked = of_slices(french=0.2, english=0.9, min_questions=13, small="block")
    assert blocked.outcome is Outcome.INCONCLUSIVE


def test_slices_are_keys_of_the_questions_and_must_exist() -> None:
    kinds = ['{"kind": "date"}'] * 20 + ["{}"] * 20
    tables = [predictions(scores, slices=kinds) for scores in ([0.2] * 20 + [1.0] * 20, MIDDLING)]
    found = judge(*tables, guards={}, slices=SliceParams(by=("kind",), guards={"f1": 10.0}))
    assert ("slice kind=date against champion", "f1") in failed(found)
    missing = judge(*tables, slices=SliceParams(by=("author",)))
    assert missing.outcome is Outcome.ERROR
    assert "no question has 'author'" in missing.reasons[0]


def test_a_system_that_declines_more_is_kept_back() -> None:
    declines = [True] * 12 + [False] * 28  # 30 % more: 16 to 45
    challenger = predictions(GOOD, abstained=declines)
    assert judge(challenger).outcome is Outcome.INCONCLUSIVE
    assert judge(challenger, max_abstention_gain=10.0).outcome is Outcome.REJECT
    assert judge(challenger, max_abstention_gain=50.0).outcome is Outcome.PROMOTE
    assert judge(challenger, max_abstention_gain=None).outcome is Outcome.PROMOTE


@pytest.mark.parametrize("answer", ["the right answer " * 4, "the"])
def test_answers_of_another_length_are_kept_back(answer: str) -> None:
    """15 characters against 68, and against 4: both more than three times."""
    challenger = predictions(GOOD, prediction=[answer] * 40)
    decision = judge(challenger, predictions(BAD))
    assert decision.outcome is Outcome.REJECT
    assert failed(decision) == [("behaviour against champion", "answer_length")]


def test_a_collapsed_retriever_is_rejected() -> None:
    """One best passage for 40 questions is 2.5 %; two are 5 %."""
    one = predictions(GOOD, evidence=[[passage("c0")]] * 40)
    assert failed(judge(one)) == [("collapse", "distinct_top1")]
    two = predictions(GOOD, evidence=[[passage("c0")]] * 39 + [[passage("c1")]])
    assert judge(two).outcome is Outcome.PROMOTE
    nothing = predictions(GOOD, evidence=[[]] * 40)
    assert judge(nothing).outcome is Outcome.REJECT


FAST = tuple(0.1 + 0.001 * place for place in range(12))
COST = CostParams(p50_ratio=1.5, p95_ratio=2.0, memory_ratio=1.5)


def timed(factor: float, memory: int = 100) -> Context:
    slow = tuple(factor * seconds for seconds in FAST)
    return Context(cost=CostSample(FAST, slow, champion_bytes=100, challenger_bytes=memory))


def test_time_and_memory_are_bounded_by_their_ratio() -> None:
    assert judge(context=timed(1.4), cost=COST).outcome is Outcome.PROMOTE
    slow = judge(context=timed(1.6), cost=COST)
    assert (slow.outcome, failed(slow)) == (
        Outcome.REJECT,
        [("cost against champion", "latency_p50")],
    )
    (p50,) = [check for check in slow.checks if check.metric == "latency_p50"]
    assert p50.value == pytest.approx(1.6)
    large = judge(context=timed(1.0, memory=151), cost=COST)
    assert failed(large) == [("cost against champion", "memory")]


def test_time_that_was_not_measured_is_an_error() -> None:
    bad = [
        None,
        Context(),
        Context(cost=CostSample(FAST, FAST[:-1], 1, 1)),
        Context(cost=CostSample(FAST, (float("nan"), *FAST[1:]), 1, 1)),
        Context(cost=CostSample(FAST, FAST, 0, 1)),
    ]
    for context in bad:
        decision = judge(context=context, cost=COST)
        assert decision.outcome is Outcome.ERROR
        assert "gate.cost" in decision.reasons[0]


def test_a_test_set_may_decide_so_often_and_no_more() -> None:
    budget = BudgetParams(warn=2, refuse=3)
    outcomes = []
    for before in range(4):
        context = Context(decisions_before=before)
        found = judge(context=context, decisions_per_test_set=budget)
        outcomes.append((found.outcome, len(found.notes)))
    assert outcomes == [
        (Outcome.PROMOTE, 0),
        (Outcome.PROMOTE, 0),
        (Outcome.PROMOTE, 1),
        (Outcome.INCONCLUSIVE, 0),
    ]


def test_a_check_from_elsewhere_counts() -> None:
    review = Check("review", "preferred", 40.0, 30.0, 49.0, 50.0, False, "people prefer the old")
    assert judge(context=Context(checks=(review,))).reasons == ("people prefer the old",)
    unsure = replace(review, high=60.0, conclusive=False)
    assert judge(context=Context(checks=(unsure,))).outcome is Outcome.INCONCLUSIVE
    passed = replace(review, passed=True)
    assert judge(context=Context(checks=(passed,))).outcome is Outcome.PROMOTE


def with_version(table: pa.Table, *versions: str | None) -> pa.Table:
    if "metrics_version" in table.schema.names:
        table = table.drop_columns(["metrics_version"])
    values = [versions[row % len(versions)] for row in range(len(table))]
    return table.append_column("metrics_version", pa.array(values, pa.string()))


def test_another_test_set_or_other_rules_are_an_error() -> None:
    today = suite_version(WON)
    assert judge(context=Context(test_set=today)).outcome is Outcome.PROMOTE
    other = judge(context=Context(test_set="0" * 64))
    assert (other.outcome, other.checks) == (Outcome.ERROR, ())
    assert f"answer test set {today[:12]}, today's is 000000000000" in other.reasons[0]
    assert judge(with_version(WON, "2"), with_version(LOST, "2")).outcome is Outcome.PROMOTE
    for ours, theirs in (("2", "3"), ("2", None)):
        found = judge(with_version(WON, ours), with_version(LOST, theirs))
        assert found.outcome is Outcome.ERROR
        assert "metrics_version" in found.reasons[0]
    assert judge(with_version(WON, "2", "3"), with_version(LOST, "2")).outcome is Outcome.ERROR


def test_the_version_of_a_test_set_is_that_of_its_questions() -> None:
    first = suite_version(WON)
    assert suite_version(LOST) == first, "answers play no part"
    assert suite_version(WON.sort_by([("question_id", "descending")])) == first
    changed = {"answers": [["another"]] * 40, "question": ["?"] * 40, "document_id": ["d"] * 40}
    versions = {suite_version(predictions(GOOD, **{name: new})) for name, new in changed.items()}
    versions |= {suite_version(predictions(GOOD[:-1])), suite_version(with_version(WON, "2"))}
    assert len(versions | {first}) == 6


def test_a_gate_without_a_threshold_is_an_error() -> None:
    open_gate = GateParams.model_construct(**{**dict(PARAMS), "floors": {}})
    assert decide(WON, LOST, {}, open_gate, seed=1).outcome is Outcome.ERROR


def test_the_significance_is_reported_beside_the_interval() -> None:
    """40 wins of 40: no permutation of signs does as well, but 1 + 0 in 1 + 1000 draws."""
    found = judge().significance["exact_match"]
    assert found["mcnemar_p"] == pytest.approx(2 * 0.5**40, abs=1e-6)
    assert found["permutation_p"] <= found["holm_p"] <= 0.01
    assert judge(WON, WON).significance["f1"]["permutation_p"] == 1.0


def test_a_refresh_must_not_lose_and_need_not_gain() -> None:
    settings = PARAMS.model_copy(update={"guards": {}, "refresh_margin": 2.0})
    same = predictions([1.0] * 40 + [0.0] * 20)
    worse = predictions([1.0] * 30 + [0.0] * 30)
    champion = predictions([1.0] * 40 + [0.0] * 20, system="champion")

    def outcome(challenger: pa.Table, *, refresh: bool) -> Outcome:
        context = Context(refresh=refresh)
        return decide(challenger, champion, {}, settings, seed=1, context=context).outcome

    assert outcome(same, refresh=True) is Outcome.PROMOTE
    assert outcome(same, refresh=False) is Outcome.REJECT, "a training has to gain"
    assert outcome(worse, refresh=True) is Outcome.REJECT
