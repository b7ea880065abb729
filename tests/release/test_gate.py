"""The gate on tables worked out by hand: each outcome, and each kind of record it must refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from rag.evaluation.version import METRICS_VERSION
from rag.params import GateParams
from rag.records import PREDICTIONS
from rag.release.gate import Decision, Outcome, decide

PARAMS = GateParams(floors={"f1": 30.0}, guards={"exact_match": 2.0}, resamples=1000, cost=None)


def passage(chunk_id: str) -> dict[str, Any]:
    """The best passage of a question."""
    return {
        "chunk_id": chunk_id,
        "document_id": "d",
        "text": "The right answer stands here.",
        "score": 1.0,
        "rank": 1,
        "posterior": None,
    }


def predictions(scores: Sequence[float], *, system: str = "tuned", **columns: Any) -> pa.Table:
    """One question a document, one score a question; `columns` replace whole columns."""
    rows = [
        {
            "system": system,
            "question_id": f"q{i:03}",
            "question": f"Which one is number {i}?",
            "answers": ["the right answer"],
            "document_id": f"d{i:03}",
            "answerable": True,
            "language": "en",
            "slices": "{}",
            "prediction": "the right answer" if score == 1.0 else "something else",
            "score": -1.0,
            "abstained": False,
            "evidence": [passage(f"c{i:03}")],
            "exact_match": float(score == 1.0),
            "f1": score,
            "rouge1": score,
            "rouge2": score,
            "rougeL": score,
            "recall@1": 1.0,
            "recall@5": 1.0,
            "mrr": 1.0,
            "metrics_version": METRICS_VERSION,
            **{name: values[i] for name, values in columns.items()},
        }
        for i, score in enumerate(scores)
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


GOOD, MIDDLING, BAD = [1.0] * 40, [1.0, 0.0] * 20, [0.0] * 40


def judge(challenger: pa.Table, champion: pa.Table | None, **changes: Any) -> Decision:
    return decide(challenger, champion, {}, PARAMS.model_copy(update=changes), seed=1)


def test_a_clear_winner_is_promoted() -> None:
    decision = judge(predictions(GOOD), predictions(BAD))
    assert decision.outcome is Outcome.PROMOTE
    assert [check.name for check in decision.checks] == [
        "primary against champion",
        "guard against champion",
        "behaviour against champion",
        "behaviour against champion",
        "floor",
        "collapse",
        "budget",
    ]
    primary, guard, floor = (decision.checks[place] for place in (0, 1, 4))
    assert (primary.value, primary.low, primary.high) == (100.0, 100.0, 100.0)
    assert (guard.metric, guard.threshold, guard.passed) == ("exact_match", -2.0, True)
    assert (floor.value, floor.threshold) == (100.0, 30.0)
    assert (decision.compared_with, decision.n_questions) == ("champion", 40)


def test_equal_systems_are_not_promoted() -> None:
    decision = judge(predictions(MIDDLING), predictions(MIDDLING))
    assert decision.outcome is Outcome.REJECT
    assert decision.checks[0].low == decision.checks[0].high == 0.0


def test_a_loser_is_rejected() -> None:
    decision = judge(predictions(MIDDLING), predictions(GOOD))
    assert decision.outcome is Outcome.REJECT
    assert decision.checks[0].value == -50.0


def test_a_gain_that_may_be_chance_is_inconclusive() -> None:
    """Better on 11 questions, worse on 9: +5 points, with an interval on both sides of 0."""
    challenger = predictions([1.0] * 11 + [0.0] * 9 + [1.0] * 20)
    champion = predictions([0.0] * 11 + [1.0] * 9 + [1.0] * 20)
    decision = judge(challenger, champion, guards={})
    assert decision.outcome is Outcome.INCONCLUSIVE
    assert decision.checks[0].value == pytest.approx(5.0)
    assert decision.checks[0].low < 0.0 < decision.checks[0].high


def test_the_gain_must_exceed_the_smallest_effect() -> None:
    better = [1.0] * 30 + [0.0] * 10
    champion = predictions([1.0] * 20 + [0.0] * 20)
    assert judge(predictions(better), champion).outcome is Outcome.PROMOTE
    hard = judge(predictions(better), champion, min_effect=24.0)
    assert hard.outcome is Outcome.INCONCLUSIVE  # 25 points, but not with confidence above 24
    assert judge(predictions(better), champion, min_effect=60.0).outcome is Outcome.REJECT


def test_a_guard_that_loses_too_much_rejects_a_winner() -> None:
    challenger = predictions(GOOD, exact_match=[0.0] * 40)
    decision = judge(challenger, predictions([0.5] * 40, exact_match=[1.0] * 40))
    assert decision.outcome is Outcome.REJECT
    assert [check.metric for check in decision.checks if not check.passed] == ["exact_match"]
    assert "exact_match -100.0 points" in decision.reasons[0]


def test_a_floor_rejects_a_winner() -> None:
    decision = judge(predictions([0.2] * 40), predictions(BAD))
    assert decision.outcome is Outcome.REJECT
    assert "below the floor of 30.0" in decision.reasons[0]


def test_bleu_is_computed_from_the_texts() -> None:
    """Also where the columns say otherwise; three tokens that all match are BLEU 100."""
    challenger = predictions(GOOD, f1=[0.5] * 40)
    decision = judge(challenger, predictions(BAD), metric="bleu", guards={})
    assert decision.outcome is Outcome.PROMOTE
    assert decision.checks[0].value == 100.0


def test_without_a_champion_every_baseline_must_be_beaten() -> None:
    weak, strong = predictions(BAD, system="closed_book"), predictions(MIDDLING, system="untuned")
    tuned = predictions(GOOD)
    won = decide(tuned, None, {"closed_book": weak, "untuned": strong}, PARAMS, seed=1)
    assert won.outcome is Outcome.PROMOTE
    assert won.compared_with == "closed_book, untuned"
    assert [check.threshold for check in won.checks[:3]] == [5.0, 5.0, 30.0]
    lost = decide(predictions(MIDDLING), None, {"a": weak, "b": strong}, PARAMS, seed=1)
    assert lost.outcome is Outcome.REJECT
    assert "f1 +0.0 points against b" in lost.reasons[0]


def test_a_baseline_without_retrieval_has_no_recall_to_beat() -> None:
    none: dict[str, Any] = dict.fromkeys(("recall@1", "recall@5", "mrr"), [None] * 40)
    closed = predictions(BAD, system="c", **none)
    other = predictions(BAD, system="z", **{"recall@5": [0.0] * 40})
    params = PARAMS.model_copy(update={"metric": "recall@5"})
    tuned = predictions(GOOD)
    assert decide(tuned, None, {"c": closed, "z": other}, params, seed=1).outcome == "PROMOTE"
    assert decide(tuned, None, {"c": closed}, params, seed=1).outcome == "ERROR"


def test_one_document_alone_proves_nothing() -> None:
    challenger = predictions(GOOD, document_id=["d"] * 40)
    champion = predictions(BAD, document_id=["d"] * 40)
    assert judge(challenger, champion, guards={}).outcome is Outcome.INCONCLUSIVE


RECALL_GAP: dict[str, Any] = {"recall@5": [None, *GOOD[1:]]}
SHORT = predictions(GOOD[:-1])
BAD_RECORDS = {
    "empty": (predictions([]), predictions(BAD), "empty"),
    "NaN": (predictions(GOOD, f1=[float("nan")] * 40), predictions(BAD), "f1"),
    "null": (predictions(GOOD, f1=[None, *GOOD[1:]]), predictions(BAD), "f1 is missing in 1 of 40"),
    "null recall": (
        predictions(GOOD, **RECALL_GAP),
        predictions(BAD),
        "recall@5 is missing",
    ),
    "out of range": (predictions(GOOD, f1=[61.2] * 40), predictions(BAD), "f1"),
    "other questions": (predictions(GOOD), SHORT, "q039"),
    "other text": (predictions(GOOD, question=["?"] * 40), predictions(BAD), "different questions"),
    "other gold": (predictions(GOOD, answers=[["x"]] * 40), predictions(BAD), "answers"),
    "duplicates": (pa.concat_tables([SHORT, SHORT.slice(0, 1)]), predictions(BAD), "q000"),
    "two systems": (
        predictions(GOOD, system="a").set_column(0, "system", pa.array(["a", "b"] * 20)),
        predictions(BAD),
        "expected one system",
    ),
    "no column": (predictions(GOOD).drop_columns(["f1"]), predictions(BAD), "no column f1"),
    "not a table": (None, predictions(BAD), "AttributeError"),
    "bad champion": (predictions(GOOD), predictions(BAD, f1=[None] * 40), "champion: f1"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_record_is_an_error(name: str) -> None:
    challenger, champion, reason = BAD_RECORDS[name]
    decision = judge(challenger, champion)
    assert decision.outcome is Outcome.ERROR
    assert reason in decision.reasons[0]
    assert decision.checks == ()


def test_a_guard_or_floor_that_cannot_be_computed_is_an_error() -> None:
    none: dict[str, Any] = dict.fromkeys(("recall@1", "recall@5", "mrr"), [None] * 40)
    challenger, champion = predictions(GOOD, **none), predictions(BAD, **none)
    for changes in ({"guards": {"recall@5": 2.0}}, {"floors": {"recall@5": 50.0}}):
        decision = judge(challenger, champion, **changes)
        assert decision.outcome is Outcome.ERROR
        assert "no recall@5" in decision.reasons[0]


def test_nothing_to_compare_with_is_an_error() -> None:
    assert decide(predictions(GOOD), None, {}, PARAMS, seed=1).outcome is Outcome.ERROR


def test_a_decision_is_replayable_and_survives_json() -> None:
    """Rows in any order, the same seed: the same record."""
    challenger, champion = predictions([0.7] * 20 + [0.4] * 20), predictions([0.5] * 40)
    first = judge(challenger, champion)
    again = judge(challenger.sort_by([("question_id", "descending")]), champion)
    assert again == first
    assert Decision.from_json(first.to_json()) == first
    assert first.params["seed"] == 1
