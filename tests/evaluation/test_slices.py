"""Slices by hand: which questions are in which, and that none is lost or counted twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from rag.evaluation.scoring import aligned_groups, rows_by_system
from rag.evaluation.slices import SliceSettings, dimensions, slice_metrics, slices_table
from rag.evaluation.statistics import Resampling
from rag.records import Question

SETTINGS = SliceSettings(min_questions=2, max_values=5)
RESAMPLING = Resampling(500, 0.95, 1)


def measured(table: pa.Table, settings: SliceSettings = SETTINGS) -> dict[str, Any]:
    rows = rows_by_system(table)
    return slice_metrics(rows["tuned"], aligned_groups(rows), ["zero_shot"], RESAMPLING, settings)


def changed(table: pa.Table, **columns: list[Any]) -> pa.Table:
    """The table with columns of the tuned system's four rows replaced."""
    rows = table.to_pylist()
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=False):
            row[name] = value
    return pa.Table.from_pylist(rows, schema=table.schema)


def tuned(table: pa.Table) -> list[dict[str, Any]]:
    return rows_by_system(table)["tuned"]


def test_what_every_question_is(table: pa.Table) -> None:
    found = dimensions(tuned(table), SETTINGS)
    assert found == {
        "language": {"en": ["q1", "q2", "q3", "q4"]},
        "answerable": {"yes": ["q1", "q2", "q3"], "no": ["q4"]},
        "question_type": {"when": ["q2"], "where": ["q3"], "which": ["q1"], "who": ["q4"]},
        # "Eagle" without its article, "2019", two Chinese characters.
        "answer_length": {"1 token": ["q1", "q2"], "(none)": ["q4"], "2-3 tokens": ["q3"]},
        "source": {"(top folder)": ["q1", "q2", "q3", "q4"]},
        "gold_rank": {
            "not found": ["q3"], "not scored": ["q4"], "rank 1": ["q1"], "rank 2-3": ["q2"],
        },
        "kind": {"1": ["q1", "q2", "q3", "q4"]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "band"),
    [
        (["Sea"], "1 token"),
        (["the Sea Eagle"], "2-3 tokens"),
        (["one two three four"], "4-7 tokens"),
        (["one two three four five six seven eight"], "8 tokens and more"),
        (["one two three four five six seven eight", "北京市"], "2-3 tokens"),
    ],
)
def test_the_length_is_that_of_the_shortest_answer(
    table: pa.Table, answers: list[str], band: str
) -> None:
    found = dimensions(tuned(changed(table, answers=[answers])), SETTINGS)
    assert "q1" in found["answer_length"][band]


def test_the_source_is_the_folder_of_the_document(table: pa.Table) -> None:
    documents = ["vessels/a.md", "vessels/old/b.md", "dev-v1.1/Normans#3", None]
    found = dimensions(tuned(changed(table, document_id=documents)), SETTINGS)
    assert found["source"] == {
        "(none)": ["q4"], "dev-v1.1": ["q3"], "vessels": ["q1"], "vessels/old": ["q2"],
    }  # fmt: skip


def test_the_rank_is_in_bands_of_the_judged_systems_retrieval(table: pa.Table) -> None:
    found = dimensions(tuned(changed(table, gold_rank=[3, 4, None])), SETTINGS)
    assert found["gold_rank"] == {
        "not found": ["q3"], "not scored": ["q4"], "rank 2-3": ["q1"], "rank 4 and below": ["q2"],
    }  # fmt: skip


def test_columns_of_the_questions_are_dimensions_and_hide_none_of_ours(table: pa.Table) -> None:
    given = ['{"level":"easy","language":"x"}', '{"level":2}', '{"level":["a"]}', "{}"]
    found = dimensions(tuned(changed(table, slices=given)), SETTINGS)
    assert found["level"] == {"(none)": ["q4"], "2": ["q2"], '["a"]': ["q3"], "easy": ["q1"]}
    assert found["language (column)"] == {"(none)": ["q2", "q3", "q4"], "x": ["q1"]}
    assert list(found["language"]) == ["en"]


def test_rare_values_are_gathered_and_said() -> None:
    rows = [
        {
            "question_id": f"q{i:03}",
            "question": "Who?",
            "answers": ["x"],
            "document_id": None,
            "answerable": True,
            "language": "en",
            "recall@1": None,
            "slices": f'{{"id": "{i if i >= 100 else i % 2}"}}',
        }
        for i in range(400)
    ]
    found = dimensions(rows, SliceSettings(30, 4))["id"]
    assert list(found) == ["0", "1", "100", "(other): 299 rarer values"]
    assert [len(ids) for ids in found.values()] == [50, 50, 1, 299]
    assert sorted(item for ids in found.values() for item in ids) == [
        row["question_id"] for row in rows
    ]


def test_slices_by_hand(table: pa.Table) -> None:
    found = measured(table)
    answerable = found["answerable"]["yes"]
    assert (answerable["n"], answerable["small"]) == (3, False)
    # Tuned is right on two of the three, zero-shot on one with F1 of 0.8, 1 and 0.
    assert answerable["systems"]["tuned"]["f1"]["value"] == pytest.approx(200 / 3, abs=1e-4)
    assert answerable["systems"]["zero_shot"]["f1"]["value"] == pytest.approx(60.0)
    assert answerable["differences"]["zero_shot"]["f1"]["value"] == pytest.approx(20 / 3, abs=1e-4)
    assert list(answerable["differences"]) == ["zero_shot"]
    assert "recall@5" not in answerable["systems"]["closed_book"]
    unanswerable = found["answerable"]["no"]
    assert (unanswerable["n"], unanswerable["small"]) == (1, True)
    assert unanswerable["systems"]["tuned"]["exact_match"] == {
        "value": 100.0, "low": 0.0, "high": 100.0,
    }, "one document alone says nothing of others"  # fmt: skip
    assert unanswerable["differences"]["zero_shot"]["f1"] == {
        "value": 100.0, "low": -100.0, "high": 100.0,
    }  # fmt: skip
    assert not {"bleu", "rougeL", "recall@5"} & set(unanswerable["systems"]["tuned"])


def test_a_slice_of_every_question_is_the_whole(table: pa.Table) -> None:
    from rag.evaluation.scoring import summarize

    whole = summarize(table, resamples=500, confidence=0.95, seed=1)
    of_all = measured(table)["language"]["en"]
    assert of_all["systems"] == whole["systems"]
    assert of_all["differences"]["zero_shot"] == whole["differences"]["zero_shot"]


def test_every_question_is_in_every_dimension_once(table: pa.Table) -> None:
    for values in measured(table).values():
        assert sum(data["n"] for data in values.values()) == 4


def test_errors_are_counted_where_they_are_known(table: pa.Table) -> None:
    assert "errors" not in measured(table)["language"]["en"]
    labelled = changed(table, error=[None, None, "retrieval", None])
    found = measured(labelled)
    assert found["language"]["en"]["errors"] == {
        "right": 3, "retrieval": 1, "reading": 0, "abstention": 0, "annotation_suspect": 0,
    }  # fmt: skip
    for values in found.values():
        for data in values.values():
            assert sum(data["errors"].values()) == data["n"]
        assert sum(data["errors"]["retrieval"] for data in values.values()) == 1


def test_slices_as_a_table(table: pa.Table) -> None:
    found = measured(table)
    shown = slices_table({"answerable": found["answerable"]})
    rows = [dict(zip(shown["columns"], row, strict=True)) for row in shown["data"]]
    (row,) = [
        row for row in rows if (row["value"], row["system"], row["metric"]) == ("no", "tuned", "f1")
    ]
    assert row == {
        "dimension": "answerable", "value": "no", "questions": 1, "small": True,
        "system": "tuned", "metric": "f1", "percent": 100.0, "low": 0.0, "high": 100.0,
    }  # fmt: skip


def test_the_language_is_that_of_the_question(questions: list[Question]) -> None:
    from rag.evaluation.scoring import prediction_rows
    from rag.records import Answer

    asked = [replace(questions[0], language="en"), replace(questions[2], language="zh")]
    rows = prediction_rows("tuned", asked, [Answer("", 0.0, True)] * 2, retrieved=None)
    assert dimensions(rows, SETTINGS)["language"] == {"en": ["q1"], "zh": ["q3"]}
