"""metrics.json: what stands in it beside the metrics, by hand."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from rag.errors import MetricError
from rag.evaluation.scoring import summarize
from rag.evaluation.significance import permutation_test
from rag.evaluation.slices import SliceSettings
from rag.evaluation.summary import evaluation_metrics, flat_metrics, metrics_text

SETTINGS: dict[str, Any] = {
    "resamples": 500,
    "confidence": 0.95,
    "seed": 1,
    "slices": SliceSettings(30, 20),
}


def changed(table: pa.Table, **columns: list[Any]) -> pa.Table:
    """The table with columns of its first rows replaced; the tuned system's four come first."""
    rows = table.to_pylist()
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=False):
            row[name] = value
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.fixture
def labelled(table: pa.Table) -> pa.Table:
    """Tuned has one wrong answer, that of q3."""
    return changed(table, error=[None, None, "retrieval", None])


def test_it_begins_with_the_metrics_of_every_system(table: pa.Table) -> None:
    found = evaluation_metrics(table, **SETTINGS)
    core = summarize(table, resamples=500, confidence=0.95, seed=1)
    assert {name: found[name] for name in core} == core
    assert set(found) - set(core) == {
        "signatures", "tests", "minimum_detectable_effect", "errors", "repaired", "abstention",
        "answer_length", "slices",
    }  # fmt: skip


def test_signatures_name_tokenizers_and_versions(table: pa.Table) -> None:
    found = evaluation_metrics(table, **SETTINGS)["signatures"]
    assert set(found) == {"bleu", "chrf"}
    assert "tok:13a+zh" in found["bleu"]
    assert all("version:" in text for text in found.values())


def test_differences_are_tested_against_every_system_and_corrected_together(
    table: pa.Table,
) -> None:
    tests = evaluation_metrics(table, **SETTINGS)["tests"]
    assert list(tests) == ["zero_shot", "closed_book"]
    for found in tests.values():
        assert set(found) == {"f1", "exact_match", "holm"}
        assert set(found["exact_match"]) == {"permutation_p", "mcnemar_p"}
        assert set(found["holm"]) == {"f1", "exact_match"}
        for metric, corrected in found["holm"].items():
            assert found[metric]["permutation_p"] <= corrected <= 1.0
    # Tuned is right alone on q1 and q4 of four, zero-shot never alone: 2 * (1/2)^2.
    assert tests["zero_shot"]["exact_match"]["mcnemar_p"] == pytest.approx(0.5)
    documents = ["document fleet", "document fleet", "document ports", "document rules"]
    gains = [100 * (1 - 0.8), 0.0, 0.0, 100.0]
    expected = permutation_test(gains, documents, resamples=500, seed=1)
    assert tests["zero_shot"]["f1"]["permutation_p"] == pytest.approx(expected)


def test_the_smallest_effect_is_of_the_paired_means(table: pa.Table) -> None:
    found = evaluation_metrics(table, **SETTINGS)["minimum_detectable_effect"]
    assert {"f1", "exact_match", "rougeL"} <= set(found)
    assert not {"bleu", "chrf"} & set(found)
    assert "recall@5" not in found, "both retrieve alike"
    assert found["f1"] > 0.0
    same = pa.concat_tables([table.slice(0, 4), changed(table.slice(0, 4), system=["b"] * 4)])
    assert evaluation_metrics(same, **SETTINGS)["minimum_detectable_effect"] == {}
    alone = evaluation_metrics(table.slice(0, 4), **SETTINGS)
    assert alone["minimum_detectable_effect"] == alone["tests"] == {}


def test_errors_are_of_the_systems_that_were_looked_into(
    table: pa.Table, labelled: pa.Table
) -> None:
    assert evaluation_metrics(table, **SETTINGS)["errors"] == {}
    found = evaluation_metrics(labelled, **SETTINGS)
    assert found["errors"] == {
        "tuned": {
            "right": 3, "retrieval": 1, "reading": 0, "abstention": 0, "annotation_suspect": 0,
        }
    }  # fmt: skip
    assert sum(found["errors"]["tuned"].values()) == found["n_questions"]


def test_a_wrong_answer_without_a_label_is_no_error_of_another_kind(table: pa.Table) -> None:
    half = changed(table, error=["reading"])
    with pytest.raises(MetricError, match="wrong answers without a label at questions: q3"):
        evaluation_metrics(half, **SETTINGS)


def test_probes_say_what_would_have_been_right(labelled: pa.Table) -> None:
    rows = [row for row in labelled.to_pylist() if row["question_id"] == "q3"]
    right = {**rows[0], "system": "oracle", "prediction": "北京", "exact_match": 1.0, "error": None}
    wrong = {**rows[0], "system": "no_passage", "error": None}
    probes = pa.Table.from_pylist([right, wrong], schema=labelled.schema)
    found = evaluation_metrics(labelled, probes, **SETTINGS)
    assert found["repaired"] == {"tuned": {"oracle": 1, "no_passage": 0}}
    assert list(found["systems"]) == ["tuned", "zero_shot", "closed_book"], "asked too little"


def test_risk_and_coverage_by_hand(table: pa.Table) -> None:
    """Confidence ranks q2, q3, q1; q4 was declined, and comes last however sure it was."""
    found = evaluation_metrics(changed(table, score=[-3.0, -1.0, -2.0, 0.0]), **SETTINGS)
    tuned = found["abstention"]["tuned"]
    # Right, wrong, right, right: risks of 0, 1/2, 1/3, 1/4.
    assert tuned["curve"] == [[25.0, 0.0], [50.0, 50.0], [75.0, 33.3333], [100.0, 25.0]]
    assert tuned["aurc"] == pytest.approx(100 * (0 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=1e-4)
    assert list(found["abstention"]) == ["tuned", "zero_shot", "closed_book"]


def test_a_long_curve_keeps_its_ends(table: pa.Table) -> None:
    row = table.to_pylist()[0]
    rows = [
        {**row, "question_id": f"q{i}", "score": float(-i), "document_id": f"d{i}"}
        for i in range(300)
    ]
    found = evaluation_metrics(pa.Table.from_pylist(rows, schema=table.schema), **SETTINGS)
    curve = found["abstention"]["tuned"]["curve"]
    assert len(curve) == 51
    assert curve[0] == [pytest.approx(100 / 300, abs=1e-4), 0.0]
    assert curve[-1] == [100.0, 0.0]


def test_lengths_of_answers_by_hand(table: pa.Table) -> None:
    """The Sea Eagle (2 tokens), 2019, 上海 (2) and nothing."""
    found = evaluation_metrics(table, **SETTINGS)["answer_length"]["tuned"]
    assert found == {"tokens": 5 / 4, "characters": (13 + 4 + 2) / 4, "empty_rate": 25.0}


def test_slices_compare_with_the_first_baseline_and_the_champion(table: pa.Table) -> None:
    rows = table.to_pylist()
    rows += [{**row, "system": "champion"} for row in rows[:4]]
    with_champion = pa.Table.from_pylist(rows, schema=table.schema)
    found = evaluation_metrics(with_champion, **SETTINGS)["slices"]["language"]["en"]
    assert list(found["differences"]) == ["zero_shot", "champion"]
    assert found["differences"]["champion"]["f1"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["small"] is True


def test_the_text_is_json_with_an_interval_a_line(labelled: pa.Table) -> None:
    found = evaluation_metrics(labelled, **SETTINGS)
    text = metrics_text(found)
    assert json.loads(text) == found
    assert text == metrics_text(evaluation_metrics(labelled, **SETTINGS))
    value = found["systems"]["tuned"]["f1"]
    line = f'"f1": {{"value": {value["value"]}, "low": {value["low"]}, "high": {value["high"]}}}'
    assert any(line in row for row in text.splitlines())


def test_what_is_followed_from_run_to_run_leaves_slices_out(labelled: pa.Table) -> None:
    found = evaluation_metrics(labelled, **SETTINGS)
    values = {(system, name): value for system, name, value in flat_metrics(found)}
    assert values["tuned", "f1"] == 75.0
    assert values["tuned", "f1_low"] == found["systems"]["tuned"]["f1"]["low"]
    assert values["tuned", "errors/retrieval"] == 1.0
    metrics = sum(map(len, found["systems"].values()))
    assert len(values) == 3 * metrics + 5
