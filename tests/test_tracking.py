"""The MLflow run of a retraining on a real store: logged once, whole, and without secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.evaluation.scoring import prediction_rows
from rag.evaluation.slices import SliceSettings
from rag.evaluation.summary import evaluation_metrics
from rag.params import Params, parse_params
from rag.records import (
    DOCUMENTS,
    PREDICTIONS,
    QUESTIONS,
    Answer,
    Document,
    Passage,
    Question,
    Split,
    read_table,
    write_table,
)
from rag.release.gate import Decision, Outcome
from rag.tracking import RunTracker, metric_name

pytestmark = pytest.mark.integration

CANARY = "canary-7f3a"
PARAMS = parse_params(
    {
        "index": {"kind": "server", "url": f"https://me:{CANARY}@qdrant:6333/?api_key={CANARY}"},
        "reader": {"lora": {"rank": 4}},
    }
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Two test questions, answered by two systems: the tuned one is right once."""
    artifacts = Artifacts(tmp_path_factory.mktemp("tracked run"))
    documents = [Document(f"d{i}", "t", "The petrel sails.", f"{i}.md", "en") for i in range(2)]
    write_table(documents, DOCUMENTS, artifacts.documents)
    splits: tuple[Split, ...] = ("test", "test", "train")
    questions = [
        Question(f"q{i}", f"What sails {i}?", ("petrel",), f"d{i}", True, split, "en")
        for i, split in enumerate(splits)
    ]
    write_table(questions, QUESTIONS, artifacts.questions)
    passages = [[Passage("c", f"d{i}", "The petrel sails.", 1.0, 1)] for i in range(2)]
    answers = [Answer("petrel", -0.1, False), Answer("fulmar", -2.0, False)]
    nothing = [Answer("", 0.0, True)] * 2
    rows = prediction_rows("tuned", questions[:2], answers, retrieved=passages)
    rows[1]["error"] = "reading"
    rows += prediction_rows("closed_book", questions[:2], nothing, retrieved=None)
    write_table(rows, PREDICTIONS, artifacts.predictions)
    table = read_table(artifacts.predictions)
    metrics = evaluation_metrics(
        table, resamples=100, confidence=0.95, seed=1, slices=SliceSettings(30, 20)
    )
    artifacts.metrics.write_text(json.dumps(metrics))
    artifacts.report.write_text("<h1>Report</h1>")
    artifacts.plots.mkdir()
    (artifacts.plots / "curve.json").write_text("[]")
    return artifacts


@pytest.fixture(autouse=True)
def _process_left_as_it_was() -> Iterator[None]:
    before = dict(os.environ)
    yield
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]


def open_run(artifacts: Artifacts, key: str, params: Params = PARAMS) -> RunTracker:
    return RunTracker.open(artifacts, params, key=key, name="retrain")


def stored(tracker: RunTracker) -> Any:
    from mlflow import MlflowClient

    return MlflowClient().get_run(tracker.run_id)


def curve(tracker: RunTracker, name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    history = MlflowClient().get_metric_history(tracker.run_id, name)
    return [(metric.step, metric.value) for metric in history]


def artifact(tracker: RunTracker, name: str) -> Path:
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(run_id=tracker.run_id, artifact_path=name))


def test_a_key_has_one_run(project: Artifacts) -> None:
    first = open_run(project, "a1")
    first.finish()
    assert stored(first).info.status == "FINISHED"
    again = open_run(project, "a1")
    assert again.run_id == first.run_id
    assert stored(again).info.status == "RUNNING"
    assert open_run(project, "a2").run_id != first.run_id
    assert first.page.startswith(f"#/experiments/{first.experiment_id}/runs/{first.run_id}")
    with pytest.raises(ReleaseError, match="letters and digits"):
        open_run(project, "a' or 1=1")


def test_only_what_decides_the_result_is_logged(
    project: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGLOOP_QDRANT_API_KEY", CANARY)
    tracker = open_run(project, "b1")
    tracker.log_params({**PARAMS.flat(), "api_key": CANARY, "environment.SECRET": CANARY})
    tracker.log_params(PARAMS)
    tracker.set_tags({"remote": f"s3://{CANARY}:{CANARY}@bucket/x", "git_commit": "abc123"})
    tracker.log_data(project, "d" * 64)
    tracker.log_evaluation(project)
    run = stored(tracker)
    assert run.data.params["reader.lora.rank"] == "4"
    assert run.data.params["index.url"] == "https://qdrant:6333/"
    assert run.data.params["gate.floors.f1"] == "30.0"
    assert not [name for name in run.data.params if name.startswith(("tracking", "schedule"))]
    assert run.data.tags["ragloop.remote"] == "s3://bucket/x"
    assert run.data.tags["mlflow.source.git.commit"] == "abc123"
    store = [path for path in project.state.rglob("*") if path.is_file()]
    assert len(store) > 3
    assert [path for path in store if CANARY.encode() in path.read_bytes()] == []


def test_curves_grow_with_the_file(project: Artifacts, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    tracker = open_run(project, "c1")
    assert tracker.follow_history(path) == 0
    path.write_text('{"step":1,"epoch":0.5,"loss":2.0,"learning_rate":0.1}\n{"step":2,"lo')
    assert tracker.follow_history(path) == 1
    with path.open("a") as file:
        file.write('ss":1.5}\n{"step":2,"dev_f1":61.0,"dev_exact_match":50.0}\n')
    assert tracker.follow_history(path) == 2
    assert tracker.follow_history(path) == 0
    assert curve(tracker, "train/loss") == [(1, 2.0), (2, 1.5)]
    assert curve(tracker, "train/learning_rate") == [(1, 0.1)]
    assert curve(tracker, "dev/f1") == [(2, 61.0)]


def test_the_retrievers_curve_is_a_group_of_its_own(project: Artifacts, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step":1,"loss":2.0}\n{"step":2,"dev_recall@1":61.0,"dev_mrr":70.0}\n')
    tracker = open_run(project, "c4")
    tracker.follow_history(path, "retriever/")
    assert curve(tracker, "retriever/train/loss") == [(1, 2.0)]
    assert curve(tracker, "retriever/dev/recall_at_1") == [(2, 61.0)]
    assert curve(tracker, "train/loss") == []


def test_a_resumed_run_repeats_no_step(project: Artifacts, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step":1,"loss":2.0}\n{"step":2,"loss":1.5}\n')
    open_run(project, "c2").follow_history(path)
    tracker = open_run(project, "c2")
    path.write_text('{"step":1,"loss":2.0}\n')  # the stage starts its file again
    tracker.follow_history(path)
    path.write_text('{"step":1,"loss":2.0}\n{"step":2,"loss":1.5}\n{"step":3,"loss":1.0}\n')
    tracker.follow_history(path)
    path.write_text("")
    assert tracker.follow_history(path) == 0
    assert curve(tracker, "train/loss") == [(1, 2.0), (2, 1.5), (3, 1.0)]


@pytest.mark.parametrize("line", ["no json", '{"loss": 1.0}', "[1]"])
def test_a_broken_line_is_named(project: Artifacts, tmp_path: Path, line: str) -> None:
    (tmp_path / "history.jsonl").write_text(f"{line}\n")
    with pytest.raises(ReleaseError, match="expected a JSON object with a step, got"):
        open_run(project, "c3").follow_history(tmp_path / "history.jsonl")


def test_data_is_an_input_with_our_digest(project: Artifacts) -> None:
    tracker = open_run(project, "d1")
    for _ in range(2):
        tracker.log_data(project, "0123456789abcdef" * 4)
    inputs = {item.dataset.name: item for item in stored(tracker).inputs.dataset_inputs}
    assert set(inputs) == {"documents", "questions-train", "questions-dev", "questions-test"}
    assert len(stored(tracker).inputs.dataset_inputs) == 4
    found = inputs["questions-test"]
    assert found.dataset.digest == "0123456789abcdef0123456789abcdef0123"
    assert json.loads(found.dataset.profile)["num_rows"] == 2
    assert json.loads(found.dataset.source) == {"uri": "data/prepare/questions.parquet"}
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "testing"}


def test_the_evaluation_is_logged_once_and_whole(project: Artifacts) -> None:
    tracker = open_run(project, "e1")
    for _ in range(2):
        tracker.log_evaluation(project)
    metrics = stored(tracker).data.metrics
    assert metrics["tuned/f1"] == 50.0
    assert (metrics["tuned/f1_low"], metrics["tuned/f1_high"]) == (0.0, 100.0)
    assert metrics["tuned/recall_at_5"] == 100.0
    assert metrics["versus/closed_book/f1"] == 0.0
    assert len(curve(tracker, "tuned/f1")) == 1
    assert (metrics["tuned/errors/reading"], metrics["tuned/errors/right"]) == (1.0, 1.0)
    assert len(curve(tracker, "tuned/errors/reading")) == 1
    assert "versus/closed_book/errors/right" not in metrics
    table = json.loads(artifact(tracker, "answers.json").read_text())
    shown = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["answer"] for row in shown] == ["fulmar", "petrel"]  # the worst first, each once
    assert shown[0]["evidence"] == "[d1] The petrel sails."
    assert shown[0]["closed_book"] == "(abstained)"
    slices = json.loads(artifact(tracker, "slices.json").read_text())
    shown = [dict(zip(slices["columns"], row, strict=True)) for row in slices["data"]]
    assert {"language", "question_type", "gold_rank"} <= {row["dimension"] for row in shown}
    assert not [name for name in metrics if "language" in name], "slices are no metrics"
    listed = json.loads(stored(tracker).data.tags["mlflow.loggedArtifacts"])
    tables = ["scores.json", "slices.json", "errors.json", "answers.json"]
    assert [item["path"] for item in listed] == tables
    for name in ("report.html", "metrics.json", "predictions.parquet", "plots/curve.json"):
        assert artifact(tracker, name).is_file()


def test_the_description_shows_verdict_and_numbers(project: Artifacts) -> None:
    tracker = open_run(project, "f1")
    tracker.log_evaluation(project)
    decision = Decision(Outcome.REJECT, ("f1 is below",), (), "champion", 2, {})
    tracker.log_decision(decision)
    tags = stored(tracker).data.tags
    assert tags["ragloop.decision"] == "REJECT"
    assert tags["ragloop.why"] == "f1 is below"
    assert tags["ragloop.champion_before"] == "none"
    note = tags["mlflow.note.content"]
    verdict, links, compared = note.split("\n\n")[:3]
    assert verdict == "REJECT: f1 is below"
    assert f"[report](#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}/" in links
    assert "compare" not in links, "there is no champion whose run could be opened"
    assert compared.startswith("Compared with champion on 2 test ")
    assert "| f1 | 50.0 (0.0 to 100.0) | 0.0 (0.0 to 0.0) |" in note.replace("&emsp;", "")
    assert (
        Decision.from_json(json.loads(artifact(tracker, "decision.json").read_text())) == decision
    )


def test_a_checkpoint_is_a_model_of_its_step(project: Artifacts, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    (tmp_path / "adapter.safetensors").write_bytes(b"weights")
    tracker = open_run(project, "g1")
    for _ in range(2):
        found = tracker.log_checkpoint(
            tmp_path, name="reader-best", step=40, metrics={"dev_f1": 61.0}
        )
    model = MlflowClient().get_logged_model(found)
    assert (model.name, model.status) == ("reader-best", "READY")
    assert [(item.key, item.value, item.step) for item in model.metrics or ()] == [
        ("dev/f1", 61.0, 40)
    ]
    outputs = stored(tracker).outputs.model_outputs
    assert [(item.model_id, item.step) for item in outputs] == [(found, 40)]
    (tmp_path / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ReleaseError, match=r"optimizer\.pt"):
        tracker.log_checkpoint(tmp_path, name="reader-last", step=50, metrics={})


def test_metric_names_are_ones_that_mlflow_takes() -> None:
    assert metric_name("tuned", "recall@5_low") == "tuned/recall_at_5_low"
