"""Rows, summary and comparison of systems, by hand, and the refusal of what does not fit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from rag.errors import MetricError
from rag.evaluation.bleu import corpus_bleu
from rag.evaluation.chrf import corpus_chrf
from rag.evaluation.scoring import compare_systems, prediction_rows, summarize
from rag.evaluation.version import METRICS_VERSION
from rag.records import (
    PREDICTIONS,
    Answer,
    Evidence,
    Passage,
    Question,
    read_table,
    write_table,
)

SETTINGS = {"resamples": 500, "confidence": 0.95, "seed": 1}


def answers(*texts: str) -> list[Answer]:
    return [Answer(text, -0.5, abstained=not text) for text in texts]


def only(table: pa.Table, system: str) -> pa.Table:
    return table.filter(pa.compute.equal(table["system"], system))


def change(table: pa.Table, row: int, **values: Any) -> pa.Table:
    rows = table.to_pylist()
    rows[row].update(values)
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_rows_hold_each_answers_own_scores(
    questions: list[Question], retrieved: list[list[Passage]]
) -> None:
    given = answers("the sea eagle", "in 2019", "上海", "")
    rows = prediction_rows("tuned", questions, given, retrieved=retrieved)
    assert [row["question_id"] for row in rows] == ["q1", "q2", "q3", "q4"]
    assert [row["exact_match"] for row in rows] == [1.0, 0.0, 0.0, 1.0]
    assert [row["f1"] for row in rows] == pytest.approx([1.0, 2 / 3, 0.0, 1.0])
    assert [row["rougeL"] for row in rows] == pytest.approx([0.8, 2 / 3, 0.0, 1.0])
    assert [row["rouge1"] for row in rows] == pytest.approx([0.8, 2 / 3, 0.0, 1.0])
    # Of bigrams "the sea", "sea eagle" one is gold; a gold answer of one token has none.
    assert [row["rouge2"] for row in rows] == pytest.approx([2 / 3, 0.0, 0.0, 1.0])
    assert [row["recall@1"] for row in rows] == [1.0, 0.0, 0.0, None]
    assert [row["recall@5"] for row in rows] == [1.0, 1.0, 0.0, None]
    assert [row["mrr"] for row in rows] == [1.0, 0.5, 0.0, None]
    assert [row["gold_rank"] for row in rows] == [1, 2, None, None]
    assert [row["precision@5"] for row in rows] == [0.2, 0.2, 0.0, None]
    # One relevant passage at rank 1, at rank 2 (a discount of log2(3)), nowhere.
    assert [row["ndcg@5"] for row in rows] == [1.0, pytest.approx(1 / math.log2(3)), 0.0, None]
    assert {row["error"] for row in rows} == {None}
    assert {row["metrics_version"] for row in rows} == {METRICS_VERSION}
    assert [passage["rank"] for passage in rows[0]["evidence"]] == [1, 2]
    assert rows[3]["abstained"] is True
    assert rows[3]["answers"] == []
    assert rows[0]["slices"] == '{"kind":1}'


def test_rows_survive_parquet(table: pa.Table, tmp_path: Any) -> None:
    path = tmp_path / "predictions.parquet"
    write_table(table.to_pylist(), PREDICTIONS, path)
    assert read_table(path).to_pylist() == table.to_pylist()


def weighed(passages: list[Passage], *shares: float | None) -> Answer:
    """An answer that was read from the first passages, with these shares."""
    evidence = tuple(
        Evidence(item.chunk_id, item.document_id, item.text, item.score, item.rank, share)
        for item, share in zip(passages, shares, strict=False)
    )
    return Answer("2019", -0.5, abstained=False, evidence=evidence)


def test_the_posterior_is_that_of_the_answer_and_survives_parquet(
    questions: list[Question], retrieved: list[list[Passage]], tmp_path: Any
) -> None:
    given = [
        weighed(retrieved[0], 0.125, 0.875),
        weighed(retrieved[1][::-1], 0.75, 0.25),  # joined by chunk, whatever the order
        weighed(retrieved[2], None),
        weighed([]),
    ]
    rows = prediction_rows("tuned", questions, given, retrieved=retrieved)
    path = tmp_path / "predictions.parquet"
    write_table(rows, PREDICTIONS, path)
    found = [
        [item["posterior"] for item in row["evidence"]] for row in read_table(path).to_pylist()
    ]
    assert found == [[0.125, 0.875], [0.25, 0.75], [None], [None]]


def test_an_answer_counts_with_its_evidence_only_where_that_was_read_and_is_right(
    questions: list[Question], retrieved: list[list[Passage]]
) -> None:
    given = [
        replace(weighed(retrieved[0], 0.125, 0.875), text="Sea Eagle"),  # from the other passage
        weighed(retrieved[1][1:], None),  # rank 2 alone was read, and holds it
        replace(weighed(retrieved[2], None), text="上海"),
        replace(weighed(retrieved[3], None), text="", abstained=True),
    ]
    rows = prediction_rows("tuned", questions, given, retrieved=retrieved)
    assert [row["exact_match"] for row in rows] == [1.0, 1.0, 0.0, 1.0]
    assert [row["evidence_em"] for row in rows] == [0.0, 1.0, 0.0, 1.0]
    assert [row["gold_read"] for row in rows] == [True, True, False, None]
    closed = prediction_rows("closed_book", questions, answers("", "", "", ""), retrieved=None)
    assert {(row["evidence_em"], row["gold_read"]) for row in closed} == {(None, None)}


def test_passages_that_were_given_are_evidence_and_no_retrieval(
    questions: list[Question], retrieved: list[list[Passage]]
) -> None:
    given = answers("the sea eagle", "2019", "北京", "")
    rows = prediction_rows("oracle", questions, given, retrieved=retrieved, score_retrieval=False)
    assert [row["evidence"][0]["rank"] for row in rows] == [1, 1, 1, 1]
    unscored = ("recall@1", "recall@5", "mrr", "precision@5", "ndcg@5", "gold_rank")
    assert {row[name] for row in rows for name in unscored} == {None}
    assert [row["exact_match"] for row in rows] == [1.0, 1.0, 1.0, 1.0]


def test_answers_by_id_are_joined_whatever_their_order(questions: list[Question]) -> None:
    given = dict(zip(["q4", "q3", "q2", "q1"], answers("", "北京", "2019", "x"), strict=True))
    rows = prediction_rows("closed_book", questions, given, retrieved=None)
    assert [row["prediction"] for row in rows] == ["x", "2019", "北京", ""]
    assert {row["recall@5"] for row in rows} == {None}
    assert all(row["evidence"] == [] for row in rows)


def test_relevance_can_be_given(questions: list[Question], retrieved: list[list[Passage]]) -> None:
    given = answers("", "", "", "")
    rows = prediction_rows("tuned", questions, given, retrieved=retrieved, relevant=lambda *_: True)
    assert [row["mrr"] for row in rows] == [1.0, 1.0, 1.0, None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answers("x"), "tuned: answers: 1 for 4 questions"),
        ({"q1": answers("x")[0]}, "tuned: answers: missing for questions: q2, q3, q4"),
        (
            dict(zip(["q1", "q2", "q3", "q4", "q9"], answers(*"abcde"), strict=True)),
            "given for unknown questions: q9",
        ),
        ([*answers("x", "x", "x"), Answer("", math.nan, True)], "question q4: the answer's score"),
        ([Answer("x", -1.0, True), *answers("x", "x", "x")], "question q1: abstained, and yet"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    questions: list[Question], given: Any, message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        prediction_rows("tuned", questions, given, retrieved=None)


def test_questions_and_passages_that_do_not_fit_are_refused(
    questions: list[Question], retrieved: list[list[Passage]]
) -> None:
    given = answers("", "", "", "")
    with pytest.raises(MetricError, match="questions that occur twice: q1"):
        prediction_rows("tuned", [questions[0], *questions[:3]], given, retrieved=None)
    with pytest.raises(MetricError, match="tuned: passages: 1 for 4 questions"):
        prediction_rows("tuned", questions, given, retrieved=retrieved[:1])
    turned = [retrieved[0][::-1], *retrieved[1:]]
    with pytest.raises(MetricError, match=r"q1: passages must be ranked 1, 2, ... in order"):
        prediction_rows("tuned", questions, given, retrieved=turned)
    broken = [[replace(retrieved[0][0], score=math.inf)], *retrieved[1:]]
    with pytest.raises(MetricError, match="q1: passage fleet-1 has score inf"):
        prediction_rows("tuned", questions, given, retrieved=broken)
    endless = [weighed(retrieved[0], math.nan), *given[1:]]
    with pytest.raises(MetricError, match="q1: passage fleet-1 has posterior nan"):
        prediction_rows("tuned", questions, endless, retrieved=retrieved)


def test_summary_by_hand(table: pa.Table) -> None:
    found = summarize(table, **SETTINGS)
    assert found["n_questions"] == 4
    assert found["confidence"] == 0.95
    assert found["metrics_version"] == METRICS_VERSION
    tuned, zero_shot = found["systems"]["tuned"], found["systems"]["zero_shot"]
    # Right: q1, q2 and the abstention of q4; BLEU, ROUGE and retrieval leave q4 out.
    assert tuned["exact_match"]["value"] == 75.0
    assert tuned["f1"]["value"] == 75.0
    assert tuned["abstention_rate"]["value"] == 25.0
    assert tuned["rougeL"]["value"] == pytest.approx(100 * (0.8 + 1 + 0) / 3, abs=1e-4)
    assert tuned["recall@1"]["value"] == pytest.approx(100 / 3, abs=1e-4)
    assert tuned["recall@5"]["value"] == pytest.approx(200 / 3, abs=1e-4)
    assert tuned["mrr"]["value"] == 50.0
    gold = [["Sea Eagle", "the Eagle"], ["2019"], ["北京"]]
    bleu = corpus_bleu(["The Sea Eagle", "2019", "上海"], gold)
    assert tuned["bleu"]["value"] == pytest.approx(bleu, abs=1e-4)
    chrf = corpus_chrf(["The Sea Eagle", "2019", "上海"], gold)
    assert tuned["chrf"]["value"] == pytest.approx(chrf, abs=1e-4)
    assert "evidence_em" not in found["systems"]["closed_book"]
    # "Eagle of the Sea" against "Sea Eagle": 2 shared of 3 and 2 tokens.
    assert zero_shot["f1"]["value"] == pytest.approx(100 * (0.8 + 1 + 0 + 0) / 4)
    change_of_f1 = found["differences"]["zero_shot"]["f1"]
    assert change_of_f1["value"] == pytest.approx(75.0 - 45.0)
    assert "recall@5" not in found["systems"]["closed_book"]
    assert "recall@5" not in found["differences"]["closed_book"]
    for metrics in found["systems"].values():
        for interval in metrics.values():
            assert 0.0 <= interval["low"] <= interval["value"] <= interval["high"] <= 100.0


def test_summary_has_stable_bytes_and_four_decimals(table: pa.Table) -> None:
    found = summarize(table, **SETTINGS)
    assert found == summarize(table, **SETTINGS)
    numbers = [
        value
        for metrics in found["systems"].values()
        for interval in metrics.values()
        for value in interval.values()
    ]
    assert all(round(value, 4) == value for value in numbers)


def test_comparison_joins_by_id_and_agrees_with_the_summary(table: pa.Table) -> None:
    tuned, zero_shot = only(table, "tuned"), only(table, "zero_shot")
    found = compare_systems(tuned, zero_shot, **SETTINGS)
    turned = compare_systems(tuned, zero_shot.take([3, 1, 0, 2]), **SETTINGS)
    assert found == turned
    assert set(found) == {
        "exact_match", "f1", "abstention_rate", "rouge1", "rouge2", "rougeL", "bleu", "chrf",
        "evidence_em", "recall@1", "recall@5", "mrr", "precision@5", "ndcg@5",
    }  # fmt: skip
    difference = summarize(table, **SETTINGS)["differences"]["zero_shot"]
    for metric, interval in found.items():
        assert interval.value == pytest.approx(difference[metric]["value"], abs=1e-4)
        assert interval.low == pytest.approx(difference[metric]["low"], abs=1e-4)
    backwards = compare_systems(zero_shot, tuned, **SETTINGS)
    assert backwards["f1"].value == -found["f1"].value


def test_comparison_of_different_questions_is_refused(table: pa.Table) -> None:
    tuned, zero_shot = only(table, "tuned"), only(table, "zero_shot")
    with pytest.raises(MetricError, match="not asked the same questions; only one of them has: q4"):
        compare_systems(tuned, zero_shot.slice(0, 3), **SETTINGS)
    with pytest.raises(MetricError, match="different accepted answers for: q2"):
        compare_systems(tuned, change(zero_shot, 1, answers=["2020"]), **SETTINGS)
    other_rules = zero_shot.set_column(
        zero_shot.schema.get_field_index("metrics_version"),
        "metrics_version",
        pa.array(["2-abc"] * 4),
    )
    with pytest.raises(MetricError, match=f"metrics_version {METRICS_VERSION} and 2-abc"):
        compare_systems(tuned, other_rules, **SETTINGS)
    with pytest.raises(MetricError, match="challenger: expected one system, got tuned, zero_shot"):
        compare_systems(table.slice(0, 8), zero_shot, **SETTINGS)


@pytest.mark.parametrize(
    ("row", "values", "message"),
    [
        (1, {"f1": math.nan}, "tuned: f1 must be between 0 and 1, and is not for questions: q2"),
        (0, {"exact_match": 2.0}, "tuned: exact_match must be between 0 and 1"),
        (1, {"question_id": "q1"}, "tuned: questions that occur twice: q1"),
        (0, {"mrr": None}, "questions with only some of the retrieval scores: q1"),
        (1, {"ndcg@5": None}, "tuned: ndcg@5 is missing for questions: q2"),
        (2, {"rouge2": None}, "tuned: rouge2 is missing for questions: q3"),
        (3, {"evidence_em": None}, "tuned: evidence_em is missing for questions: q4"),
        (3, {"metrics_version": "0-old"}, f"metrics_version 0-old and {METRICS_VERSION}"),
        (3, {"metrics_version": None}, f"metrics_version {METRICS_VERSION} and unknown"),
    ],
)
def test_summary_names_the_culprit(
    table: pa.Table, row: int, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        summarize(change(table, row, **values), **SETTINGS)


def test_summary_needs_something_to_score(table: pa.Table, questions: list[Question]) -> None:
    with pytest.raises(MetricError, match="empty"):
        summarize(table.slice(0, 0), **SETTINGS)
    with pytest.raises(MetricError, match="no question is answerable"):
        summarize(table.slice(3, 1), **SETTINGS)
