"""Test questions as MLflow traces on a real store: whole, owned by their run, logged once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rag.evaluation.scoring import prediction_rows
from rag.records import PREDICTIONS, Answer, Evidence, Passage, Question, to_table
from rag.release.traces import QuestionTrace, log_traces, question_traces

QUESTIONS = [
    Question(f"q{i}", f"What sails {i}?", ("petrel", "a petrel"), f"d{i}", True, "test", "en")
    for i in range(3)
]
PASSAGES = [
    Passage("c1", "d0", "The petrel sails.", 1.0, 1),
    Passage("c2", "d1", "The fulmar sails.", 0.5, 2),
]


def rows(system: str, *texts: str) -> list[dict[str, Any]]:
    evidence = tuple(
        Evidence(item.chunk_id, item.document_id, item.text, item.score, item.rank, 0.5)
        for item in PASSAGES
    )
    answers = [Answer(text, -0.5, abstained=not text, evidence=evidence) for text in texts]
    return prediction_rows(system, QUESTIONS, answers, retrieved=[PASSAGES] * 3)


def traces(*tuned: str, champion: tuple[str, ...] = (), limit: int = 100) -> list[QuestionTrace]:
    found = rows("tuned", *tuned) + (rows("champion", *champion) if champion else [])
    reference = "champion" if champion else None
    return question_traces(to_table(found, PREDICTIONS), reference, limit)


def test_changed_and_wrong_answers_come_first() -> None:
    # Right before and now; lost; wrong and the same.
    tuned, champion = ("petrel", "fulmar", "gull"), ("petrel", "petrel", "gull")
    ordered = traces(*tuned, champion=champion)
    assert [trace.question_id for trace in ordered] == ["q1", "q2", "q0"]
    assert [trace.tags["ragloop.change"] for trace in ordered] == ["lost", "same", "same"]
    assert ordered[0].read["answer_of_champion"] == "petrel"
    assert [trace.question_id for trace in traces(*tuned, champion=champion, limit=1)] == ["q1"]
    assert [trace.question_id for trace in traces(*tuned)] == ["q1", "q2", "q0"]
    assert traces(*tuned, limit=0) == []


def test_an_id_is_that_of_the_content() -> None:
    (first, *_), (again, *_) = traces("a", "b", "c"), traces("a", "b", "c")
    assert first.trace_id("run") == again.trace_id("run")
    assert first.trace_id("run") != first.trace_id("other run")
    assert first.trace_id("run") != replace(first, answer="other").trace_id("run")
    assert len(bytes.fromhex(first.trace_id("run"))) == 16


@pytest.fixture
def experiment(tmp_path: Any) -> Iterator[tuple[Any, str, str]]:
    """A client of a new store, an experiment and a run."""
    import mlflow
    from mlflow import MlflowClient

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient()
    experiment_id = client.create_experiment("e", artifact_location=f"file://{tmp_path}/files")
    yield client, experiment_id, client.create_run(experiment_id).info.run_id
    mlflow.set_tracking_uri(before)


@pytest.mark.integration
def test_a_trace_holds_retrieval_reading_and_what_was_expected(
    experiment: tuple[Any, str, str],
) -> None:
    client, experiment_id, run_id = experiment
    made = traces("petrel", "", "gull", champion=("gull", "", "gull"))
    owner = {"experiment_id": experiment_id, "run_id": run_id, "model_id": "m-1"}
    assert log_traces(made, **owner) == 3
    found = client.search_traces(locations=[experiment_id], run_id=run_id)
    by_question = {trace.info.tags["ragloop.question_id"]: trace for trace in found}
    assert [trace.info.tags["ragloop.question_id"] for trace in found] == ["q0", "q1", "q2"]
    trace = by_question["q0"]
    assert trace.info.trace_metadata["mlflow.modelId"] == "m-1"
    assert trace.info.tags["ragloop.change"] == "gained"
    root, retrieve, read = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    assert [span.name for span in (root, retrieve, read)] == ["answer", "retrieve", "read"]
    assert (retrieve.parent_id, read.parent_id) == (root.span_id, root.span_id)
    assert (retrieve.span_type, retrieve.inputs) == ("RETRIEVER", {"question": "What sails 0?"})
    assert retrieve.outputs[1]["page_content"] == "The fulmar sails."
    assert retrieve.outputs[1]["metadata"]["score"] == 0.5
    assert read.outputs == {"answer": "petrel", "abstained": False}
    assert read.get_attribute("score") == -0.5
    assert read.get_attribute("posterior") == {"c1": 0.5, "c2": 0.5}
    values = {item.name: item.value for item in trace.info.assessments}
    assert values == {"expected_response": "petrel | a petrel", "exact_match": True, "f1": 1.0}
    abstained = by_question["q1"]
    assert abstained.info.response_preview == "(abstained)"
    by_model = client.search_traces(locations=[experiment_id], model_id="m-1")
    assert len(by_model) == 3


@pytest.mark.integration
def test_logging_again_keeps_what_holds_and_deletes_what_does_not(
    experiment: tuple[Any, str, str],
) -> None:
    client, experiment_id, run_id = experiment
    owner = {"experiment_id": experiment_id, "run_id": run_id, "model_id": None}
    assert log_traces(traces("petrel", "gull", "gull"), **owner) == 3
    first = client.search_traces(locations=[experiment_id], run_id=run_id, include_spans=False)
    client.set_trace_tag(first[0].info.trace_id, "seen", "yes")  # a person's note
    assert log_traces(traces("petrel", "gull", "gull"), **owner) == 0
    assert log_traces(traces("petrel", "gull", "tern"), **owner) == 1
    found = client.search_traces(locations=[experiment_id], run_id=run_id)
    assert sorted(trace.info.response_preview for trace in found) == ["gull", "petrel", "tern"]
    assert {len(trace.data.spans) for trace in found} == {3}
    assert [trace.info.tags.get("seen") for trace in found].count("yes") == 1
    other = client.create_run(experiment_id).info.run_id
    assert log_traces(traces("petrel", "gull", "gull"), **{**owner, "run_id": other}) == 3


@pytest.mark.integration
def test_traces_that_were_cut_off_get_their_spans(
    experiment: tuple[Any, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracing.client import TracingClient

    client, experiment_id, run_id = experiment
    owner = {"experiment_id": experiment_id, "run_id": run_id, "model_id": None}

    def cut(*_: object) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(TracingClient, "log_spans", cut)
        with pytest.raises(ConnectionError):
            log_traces(traces("petrel", "gull", "gull"), **owner)
    assert log_traces(traces("petrel", "gull", "gull"), **owner) == 0
    found = client.search_traces(locations=[experiment_id], run_id=run_id)
    assert [len(trace.data.spans) for trace in found] == [3, 3, 3]
    assert [len(trace.info.assessments) for trace in found] == [3, 3, 3]


@pytest.mark.integration
def test_a_hundred_traces_take_no_time(experiment: tuple[Any, str, str]) -> None:
    """Ten seconds of this process would be noticed; it takes under one."""
    client, experiment_id, run_id = experiment
    (trace, *_) = traces("petrel", "gull", "gull")
    passage = {**trace.passages[0], "text": "The petrel sails at six. " * 30}
    hundred = [
        replace(
            trace,
            question_id=f"q{number}",
            passages=[passage] * 5,
            tags={**trace.tags, "ragloop.question_id": f"q{number}"},
        )
        for number in range(100)
    ]
    owner = {"experiment_id": experiment_id, "run_id": run_id, "model_id": None}
    started = time.process_time()
    assert log_traces(hundred, **owner) == 100
    new = time.process_time() - started
    assert log_traces(hundred, **owner) == 0
    again = time.process_time() - started - new
    print(f"100 traces: {new:.2f} s of processor time, logged again {again:.2f} s")
    assert new < 10.0
    found = client.search_traces(
        locations=[experiment_id], run_id=run_id, max_results=500, include_spans=False
    )
    assert len(found) == 100
