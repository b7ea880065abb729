"""Verdicts in a real MLflow store: on the traces of their questions, as a table, as metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.evaluation.review_folder import Review, read_review, save_review, save_verdicts
from rag.evaluation.review_result import human_result
from rag.evaluation.review_verdicts import Choice, Verdict
from rag.evaluation.statistics import Resampling
from rag.release.assessments import (
    FEEDBACK,
    QUESTION_TAG,
    log_human_metrics,
    log_verdicts,
)
from tests.evaluation.review_case import make_review


def reviewed(folder: Path, said: dict[str, list[Choice]]) -> Review:
    sheet, key = make_review()
    save_review(folder, sheet, key)
    for rater, choices in said.items():
        verdicts = [
            Verdict(row.row, choice, f"why {row.question_id}")
            for row, choice in zip(key.rows, choices, strict=True)
        ]
        save_verdicts(folder, read_review(folder, key.review), rater, verdicts)
    return read_review(folder, key.review)


def trace(run_id: str, tags: dict[str, str]) -> str:
    """A trace with these tags, as part of a run."""
    import mlflow

    with mlflow.start_run(run_id=run_id), mlflow.start_span("answer") as span:
        mlflow.update_current_trace(tags=tags)
    mlflow.flush_trace_async_logging()
    return str(span.trace_id)


def feedback(trace_id: str) -> list[Any]:
    import mlflow

    found = mlflow.get_trace(trace_id)
    assert found is not None
    return [item for item in found.info.assessments if item.name == FEEDBACK]


@pytest.mark.integration
def test_a_verdict_stands_on_the_trace_of_its_question(run_id: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    traces = {name: trace(run_id, {QUESTION_TAG: name}) for name in ("q1", "q3", "q5")}
    other = trace(run_id, {"user": "q1"})
    review = reviewed(tmp_path, {"Ann": ["A", "A", "A", "A"], "Ben": ["tie"] * 4})
    client = MlflowClient()
    assert log_verdicts(client, run_id, review) == 3, "q6 has no trace"
    assert log_verdicts(client, run_id, review) == 3, "repeated"
    sides = {row.question_id: row.challenger for row in review.key.rows}
    for question_id, trace_id in traces.items():
        found = {item.source.source_id: item for item in feedback(trace_id)}
        assert sorted(found) == ["Ann", "Ben"]
        assert found["Ann"].value == ("win" if sides[question_id] == "A" else "loss")
        assert found["Ben"].value == "tie"
        assert found["Ann"].source.source_type == "HUMAN"
        assert found["Ann"].rationale == f"why {question_id}"
        assert found["Ann"].metadata["ragloop.opponent"] == "champion 3"
    assert len(feedback(traces["q1"])) == 2
    assert feedback(other) == []

    changed = reviewed(tmp_path, {"Ben": ["both_bad"] * 4})
    log_verdicts(client, run_id, changed)
    said = [item for item in feedback(traces["q1"]) if item.source.source_id == "Ben"]
    assert {(item.value, item.valid) for item in said} == {("tie", False), ("both_bad", True)}
    log_verdicts(client, run_id, changed)
    assert len(feedback(traces["q1"])) == 3


@pytest.mark.integration
def test_the_run_has_a_table_and_metrics(run_id: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    client.set_tag(run_id, "mlflow.loggedArtifacts", '[{"path": "answers.json", "type": "table"}]')
    review = reviewed(tmp_path, {"Ann": ["A", "A", "B", "tie"], "Ben": ["A", "A", "B", "A"]})
    for _ in range(2):
        assert log_verdicts(client, run_id, review) == 0
    path = f"reviews/{review.key.review}.json"
    table = json.loads(Path(client.download_artifacts(run_id, path, str(tmp_path))).read_text())
    assert table["columns"][:4] == ["question", "challenger", "opponent", "verdict"]
    assert len(table["data"]) == 8
    rows = {(row[6], row[4]): row for row in table["data"]}
    side = {row.question_id: row.challenger for row in review.key.rows}
    assert rows["q6", "Ann"][:3] == ["q6?", "noon", "dawn"]
    first = review.key.rows[0].question_id
    assert rows[first, "Ann"][3] == ("win" if side[first] == "A" else "loss")
    run = client.get_run(run_id)
    listed = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert listed == [
        {"path": "answers.json", "type": "table"},
        {"path": path, "type": "table"},
    ]

    result = human_result([(review.key, review.verdicts)], Resampling(200, 0.95, 1))
    log_human_metrics(client, run_id, result)
    metrics = client.get_run(run_id).data.metrics
    assert metrics["human/win_rate"] == result.win_rate.value
    assert metrics["human/win_rate_low"] == result.win_rate.low
    assert (metrics["human/judged_questions"], metrics["human/judgements"]) == (4.0, 8.0)
    # Observed 3/4; by chance (2 * 3 + 1 * 1) / 16; 5/9.
    assert metrics["human/kappa"] == pytest.approx(5 / 9)
