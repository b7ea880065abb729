"""What `ragloop score` refuses, and that each message names the culprit; nothing is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import DataError, MetricError
from rag.evaluation import score_table as table_module
from rag.evaluation.answer_scores import answer_scores
from rag.evaluation.bleu import bleu_statistics
from rag.evaluation.rouge import rouge_scores
from rag.evaluation.score_files import score_files

REFERENCES = [
    {"id": "a", "answers": ["Sea Eagle"], "kind": "name"},
    {"id": "b", "answers": ["2019"], "kind": "date"},
    {"id": "c", "answers": [], "answerable": False, "kind": "date"},
]
PREDICTIONS = {"a": "Sea Eagle", "b": "2018", "c": "Ashby"}


def write(path: Path, content: Any) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in content) if path.suffix == ".jsonl" else None
    path.write_text(lines if lines is not None else json.dumps(content))
    return path


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return write(tmp_path / "r.jsonl", REFERENCES)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return write(tmp_path / "p.json", PREDICTIONS)


def test_ids_that_occur_twice_are_refused_in_each_file(
    tmp_path: Path, references: Path, predictions: Path
) -> None:
    twice = tmp_path / "twice.json"
    twice.write_text('{"a": "x", "b": "y", "a": "x"}')
    with pytest.raises(DataError, match="id 'a' occurs twice"):
        score_files(twice, references, resamples=5)
    doubled = write(tmp_path / "doubled.jsonl", [*REFERENCES, REFERENCES[1]])
    with pytest.raises(DataError, match=r"doubled.jsonl:4: id 'b' occurs twice"):
        score_files(predictions, doubled, resamples=5)


def test_predictions_for_unknown_questions_are_refused(tmp_path: Path, references: Path) -> None:
    extra = write(tmp_path / "extra.json", {**PREDICTIONS, "y": "1", "z": "2"})
    with pytest.raises(DataError, match=r"2 of 5 ids are not in .*r.jsonl: y, z"):
        score_files(extra, references, resamples=5)


def test_missing_predictions_count_as_wrong_in_every_metric(
    tmp_path: Path, references: Path
) -> None:
    one = write(tmp_path / "one.json", {"a": "Sea Eagle"})
    found = score_files(one, references, resamples=5)
    assert found["missing"] == ["b", "c"]
    assert found["n_questions"] == 3
    values = {name: interval["value"] for name, interval in found["metrics"].items()}
    assert values["exact_match"] == values["f1"] == pytest.approx(100 / 3, abs=1e-4)
    assert values["rouge1"] == values["rougeL"] == 50.0
    # BLEU: 2 words of 2 match; 2 words stand against 3 in the references.
    assert values["bleu"] == pytest.approx(100 * np.exp(1 - 3 / 2), abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": 0.1, "b": 0.2}, "no number for 'c'"),
        ({"a": 0.1, "b": 0.2, "c": 0.3, "z": 1}, "id 'z' is not in the references"),
        ({"a": 0.1, "b": float("nan"), "c": 0.3}, "'b' needs a finite number, got nan"),
        ({"a": 0.1, "b": 10**400, "c": 0.3}, "'b' needs a finite number"),
        ({"a": 0.1, "b": True, "c": 0.3}, "'b' needs a finite number, got True"),
        ({"a": 0.1, "b": "high", "c": 0.3}, "'b' needs a finite number, got 'high'"),
        (["a"], r"expected a JSON object \{id: number\}"),
    ],
)
def test_scores_of_no_answer_must_cover_the_questions(
    tmp_path: Path, references: Path, predictions: Path, scores: Any, message: str
) -> None:
    file = write(tmp_path / "n.json", scores)
    with pytest.raises(DataError, match=message):
        score_files(predictions, references, resamples=5, no_answer_scores=file)


def test_a_threshold_alone_is_refused(references: Path, predictions: Path) -> None:
    with pytest.raises(DataError, match="--no-answer-threshold needs --no-answer-scores"):
        score_files(predictions, references, resamples=5, no_answer_threshold=0.5)


def test_slices_need_their_key_in_every_row(
    tmp_path: Path, references: Path, predictions: Path
) -> None:
    with pytest.raises(DataError) as caught:
        score_files(predictions, references, resamples=5, by="topic")
    assert len(caught.value.problems) == 3
    assert "r.jsonl:1: 'a' has no 'topic'" in caught.value.problems[0]
    squad = write(tmp_path / "r.json", {"data": []})
    with pytest.raises(DataError, match="only JSONL references have a key 'topic'"):
        score_files(predictions, squad, resamples=5, by="topic")


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, float("nan")])
def test_a_confidence_that_is_none_is_refused(
    references: Path, predictions: Path, confidence: float
) -> None:
    with pytest.raises(MetricError, match="confidence between 0 and 1"):
        score_files(predictions, references, resamples=5, confidence=confidence)


def test_a_score_that_is_not_finite_names_metric_and_question(
    references: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault is put into a metric, since none of ours gives a NaN."""

    def broken(texts: list[str], answers: list[Any], *, stem: bool) -> Any:
        scores = rouge_scores(texts, answers, stem=stem)
        scores["rouge2"][1] = np.nan
        return scores

    monkeypatch.setattr(table_module, "rouge_scores", broken)
    with pytest.raises(MetricError, match="rouge2: not finite for 1 questions: b"):
        score_files(predictions, references, resamples=5)


@pytest.mark.parametrize("score", [answer_scores, rouge_scores, bleu_statistics])
def test_lists_of_different_length_are_refused(score: Any) -> None:
    with pytest.raises(MetricError, match="2 predictions but 1 lists"):
        score(["a", "b"], [["a"]])


def test_a_file_that_cannot_be_written_is_an_error(
    tmp_path: Path, references: Path, predictions: Path
) -> None:
    nowhere = tmp_path / "nowhere" / "questions.jsonl"
    with pytest.raises(DataError, match="cannot be written"):
        score_files(predictions, references, resamples=5, per_question=nowhere)
