"""The evaluate stage with every system that it knows, on a small real project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.evaluation.evaluate import evaluate_systems
from rag.evaluation.version import METRICS_VERSION
from rag.records import QUESTIONS, Question, read_table, write_table
from tests.answering_project import TEXTS, write_adapter, write_answering_project
from tests.toy import toy_params

pytestmark = pytest.mark.integration

EXAMPLE = {"question": "Who rests?", "passages": ["The crew rests."], "answer": "the crew"}


@pytest.fixture(scope="module")
def evaluated(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    root = tmp_path_factory.mktemp("evaluated")
    params = toy_params(
        f"reader.model={toy_model}",
        "reader.fusion=rag_token",
        "reader.passages=2",
        "reader.abstain=null",
        "retriever.mode=none",
        "evaluate.baselines=[zero_shot, one_shot, closed_book]",
        "evaluate.oracle=true",
        "evaluate.resamples=100",
    )
    write_adapter(toy_model, Artifacts(root).reader / "adapter")
    artifacts = write_answering_project(
        root, params, examples=[EXAMPLE], prior_temperature=0.25, best_step=1, steps=2
    )
    questions = [
        Question("q0", "when does the petrel sail?", ("dawn",), "d1", True, "test", "en"),
        Question("q1", "who travels free?", ("dogs",), "d2", True, "test", "en"),
        Question("q2", "what did the anchor cost?", (), None, False, "test", "en"),
        Question("q3", "what sails at dawn?", ("fulmar",), None, True, "test", "en"),
    ]
    write_table(questions, QUESTIONS, artifacts.questions)
    artifacts.history.write_text('{"loss": 1.0, "step": 1}\n', encoding="utf-8")
    evaluate_systems(params, artifacts)
    return artifacts


def evidence(artifacts: Artifacts, system: str) -> list[list[dict[str, Any]]]:
    rows = read_table(artifacts.predictions).to_pylist()
    return [row["evidence"] for row in rows if row["system"] == system]


def test_every_system_answered_every_question(evaluated: Artifacts) -> None:
    metrics = json.loads(evaluated.metrics.read_text(encoding="utf-8"))
    assert metrics["n_questions"] == 4
    assert list(metrics["systems"]) == ["tuned", "zero_shot", "one_shot", "closed_book", "oracle"]
    retrieving = [name for name, found in metrics["systems"].items() if "recall@5" in found]
    assert retrieving == ["tuned", "zero_shot", "one_shot"]


def test_the_oracle_was_given_gold_where_there_is_any(evaluated: Artifacts) -> None:
    first, second, *others = evidence(evaluated, "oracle")
    assert [item["text"] for item in first] == [TEXTS[1]]
    assert [item["text"] for item in second] == [TEXTS[2]]
    assert {len(found) for found in others} == {len(TEXTS)}, "no gold passage: what was retrieved"


def probe(artifacts: Artifacts, system: str) -> dict[str, dict[str, Any]]:
    rows = read_table(artifacts.probes).to_pylist()
    return {row["question_id"]: row for row in rows if row["system"] == system}


def test_wrong_answers_are_asked_again_with_other_passages(evaluated: Artifacts) -> None:
    rows = read_table(evaluated.predictions).to_pylist()
    tuned = {row["question_id"]: row for row in rows if row["system"] == "tuned"}
    # The toy's reader is random: what it says stands in no passage, so it always declines.
    assert [row["exact_match"] for row in tuned.values()] == [0.0, 0.0, 1.0, 0.0]
    oracle = probe(evaluated, "oracle")
    assert {name: row["evidence"][0]["text"] for name, row in oracle.items()} == {
        "q0": TEXTS[1],
        "q1": TEXTS[2],
        "q3": TEXTS[1],  # of no document: the first passage found that holds the answer
    }
    assert {len(row["evidence"]) for row in oracle.values()} == {1}
    below = {name for name, row in tuned.items() if (row["gold_rank"] or 0) > 1}
    moved = probe(evaluated, "oracle_rerank")
    assert set(moved) == below
    for name, row in moved.items():
        found, given = tuned[name]["evidence"], row["evidence"]
        assert given[0]["chunk_id"] == found[tuned[name]["gold_rank"] - 1]["chunk_id"]
        assert {item["chunk_id"] for item in given} == {item["chunk_id"] for item in found}
        assert [item["score"] for item in given] == [item["score"] for item in found]
    nothing = probe(evaluated, "no_passage")
    assert {name: row["evidence"] for name, row in nothing.items()} == {
        "q0": [],
        "q1": [],
        "q3": [],
    }
    assert all(row["prediction"] for row in nothing.values()), "answered without the check"


def test_every_wrong_answer_has_its_error(evaluated: Artifacts) -> None:
    rows = read_table(evaluated.predictions).to_pylist()
    errors = {row["question_id"]: row["error"] for row in rows if row["system"] == "tuned"}
    assert list(errors.values()) == ["abstention", "abstention", None, "abstention"]
    assert {row["error"] for row in rows if row["system"] != "tuned"} == {None}
    metrics = json.loads(evaluated.metrics.read_text(encoding="utf-8"))
    assert metrics["errors"] == {
        "tuned": {
            "right": 1, "retrieval": 0, "reading": 0, "abstention": 3, "annotation_suspect": 0,
        }
    }  # fmt: skip
    assert metrics["repaired"]["tuned"]["oracle"] == 0
    assert metrics["slices"]["answerable"]["yes"]["errors"]["abstention"] == 3
    assert metrics["metrics_version"] == METRICS_VERSION
    table = evaluated.plots / "errors.csv"
    assert "tuned,abstention,3,75.0\n" in table.read_text(encoding="utf-8")


def test_passages_that_were_read_have_a_posterior(evaluated: Artifacts) -> None:
    for passages in evidence(evaluated, "tuned"):
        first, second, unread = (item["posterior"] for item in passages)
        assert first + second == pytest.approx(1.0)
        assert unread is None
    assert evidence(evaluated, "closed_book") == [[], [], [], []]


def test_the_report_says_how_it_was_read(evaluated: Artifacts) -> None:
    page = evaluated.report.read_text(encoding="utf-8")
    for name, value in (
        ("Fusion", "rag_token"),
        ("Prior temperature", "0.25"),
        ("Decoding", "greedy"),
        ("Examples in a prompt", "0"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
