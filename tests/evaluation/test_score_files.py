"""`ragloop score`: values by hand, every format, and every way a file can be wrong."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from rag.errors import DataError, MetricError
from rag.evaluation.score_files import score_files


def write(path: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    packed = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(packed(text.encode()))
    return path


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def squad(*questions: dict[str, Any]) -> dict[str, Any]:
    paragraphs = [{"context": "text", "qas": [question]} for question in questions]
    return {"version": "2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}


def asked(question_id: str, *answers: str) -> dict[str, Any]:
    found = [{"text": answer, "answer_start": 0} for answer in answers]
    return {"id": question_id, "question": "?", "answers": found, "is_impossible": not answers}


REFERENCES = squad(
    asked("a", "Sea Eagle"), asked("b", "2019", "in 2019"), asked("c"), asked("d", "北京")
)
PREDICTIONS = {"c": "", "a": "the Sea Eagle", "b": "2018"}


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return write(tmp_path / "references.json", REFERENCES)


def score(predictions: Path, references: Path) -> dict[str, Any]:
    return score_files(predictions, references, resamples=300, seed=2)


def test_scores_by_hand_with_a_missing_prediction(tmp_path: Path, references: Path) -> None:
    found = score(write(tmp_path / "predictions.json", PREDICTIONS), references)
    assert found["n_questions"] == 4
    assert found["n_answerable"] == 3
    assert found["missing"] == ["d"]
    metrics = found["metrics"]
    assert list(metrics) == ["exact_match", "f1", "bleu", "rouge1", "rouge2", "rougeL"]
    assert metrics["exact_match"]["value"] == 50.0  # a and the unanswerable c
    assert metrics["f1"]["value"] == 50.0
    assert metrics["rouge1"]["value"] == pytest.approx(100 * 0.8 / 3, abs=1e-4)
    assert metrics["rouge2"]["value"] == pytest.approx(100 * (2 / 3) / 3, abs=1e-4)
    assert found["bleu_signature"].startswith("case:mixed|eff:yes|tok:13a+zh|smooth:exp|version:")
    for interval in metrics.values():
        assert interval["low"] <= interval["value"] <= interval["high"]


def test_a_missing_prediction_is_wrong_even_where_silence_is_right(
    tmp_path: Path, references: Path
) -> None:
    silent = write(tmp_path / "silent.json", {"a": "", "b": "", "c": None, "d": ""})
    missing = write(tmp_path / "missing.json", {"a": ""})
    assert score(silent, references)["metrics"]["exact_match"]["value"] == 25.0
    assert score(missing, references)["metrics"]["exact_match"]["value"] == 0.0
    assert score(missing, references)["missing"] == ["b", "c", "d"]


@pytest.mark.parametrize("key", ["prediction", "answer"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_every_format_gives_the_same_scores(tmp_path: Path, key: str, suffix: str) -> None:
    first = score(
        write(tmp_path / "predictions.json", PREDICTIONS),
        write(tmp_path / f"references.json{suffix}", REFERENCES),
    )
    rows = [{"id": question_id, key: text} for question_id, text in PREDICTIONS.items()]
    gold = [
        {"id": "a", "answers": ["Sea Eagle"]},
        {"id": "b", "answers": ["2019", "in 2019"]},
        {"id": "c", "answers": [], "answerable": False},
        {"id": "d", "answers": ["北京"]},
    ]
    second = score(
        write(tmp_path / f"predictions.jsonl{suffix}", lines(*rows)),
        write(tmp_path / f"references.jsonl{suffix}", lines(*gold)),
    )
    values = [[each["value"] for each in found["metrics"].values()] for found in (first, second)]
    assert values[0] == values[1]


def test_questions_of_one_document_are_resampled_together(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.json", {"a": "x", "b": "x", "c": "y"})
    rows = [{"id": name, "answers": ["x"]} for name in "abc"]
    apart = score(predictions, write(tmp_path / "apart.jsonl", lines(*rows)))
    rows = [{**row, "document": "d"} for row in rows]
    together = score(predictions, write(tmp_path / "together.jsonl", lines(*rows)))
    assert together["metrics"]["f1"] == {"value": 66.6667, "low": 0.0, "high": 100.0}
    assert apart["metrics"]["f1"]["value"] == 66.6667


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", '{"a": "x", "a": "y"}', r"p.json: id 'a' occurs twice"),
        ("p.json", '{"a": 3}', r"p.json: the answer of 'a' must be a text, got 3"),
        ("p.json", '{"a": ', r"p.json:1: not valid JSON"),
        ("p.json", '["a"]', r"expected a JSON object \{id: answer\}"),
        ("p.json", '{"z": "x"}', r"1 of 1 ids are not in .*references.json: z"),
        ("p.jsonl", '{"id": "a"}\n', r'p.jsonl:1: expected \{"id", "prediction"\}'),
        ("p.jsonl", '{"id": "a", "answer": "x"}\n{oops\n', r"p.jsonl:2: not valid JSON"),
        ("p.jsonl", "\n[1]\n", r"p.jsonl:2: expected an object, got \[1\]"),
    ],
)
def test_bad_predictions_are_refused(
    tmp_path: Path, references: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        score(write(tmp_path / name, content), references)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", {"questions": []}, r'expected SQuAD JSON, \{"data"'),
        ("r.json", {"data": []}, r"r.json: no question"),
        ("r.json", {"data": [{}]}, r"r.json: data\[0\]: expected a list 'paragraphs'"),
        (
            "r.json",
            squad(asked("a", "x"), asked("a", "y")),
            r"\[1\]: id 'a' occurs twice",
        ),
        ("r.json", squad({"id": "a", "answers": []}), r"'a' has no answer and is not impossible"),
        ("r.json", squad({"id": "a", "answers": [{"text": " "}]}), r"expected a question with id"),
        ("r.jsonl", '{"id": "a", "answers": "x"}\n', r'r.jsonl:1: expected \{"id", "answers"'),
        ("r.jsonl", lines({"id": "a", "answers": [], "answerable": True}), r"has no answers"),
    ],
)
def test_bad_references_are_refused(tmp_path: Path, name: str, content: Any, message: str) -> None:
    predictions = write(tmp_path / "predictions.json", {"a": "x"})
    with pytest.raises(DataError, match=message):
        score(predictions, write(tmp_path / name, content))


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path, references: Path) -> None:
    content = '{"id": "a", "answer": "x"}\n{"id": "a", "answer": "y"}\n{"id": 5}\nnope\n'
    with pytest.raises(DataError) as caught:
        score(write(tmp_path / "p.jsonl", content), references)
    assert len(caught.value.problems) == 3
    assert caught.value.exit_code == 2


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, references: Path) -> None:
    with pytest.raises(DataError, match=r"absent.json: no such file"):
        score(tmp_path / "absent.json", references)
    broken = tmp_path / "broken.json.xz"
    broken.write_bytes(b"not compressed")
    with pytest.raises(DataError, match="cannot be read"):
        score(broken, references)
    latin = tmp_path / "latin.json"
    latin.write_bytes('{"a": "café"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        score(latin, references)


def test_references_without_any_answer_have_no_bleu(tmp_path: Path) -> None:
    gold = write(tmp_path / "r.json", squad(asked("a")))
    with pytest.raises(MetricError, match="no question is answerable"):
        score(write(tmp_path / "p.json", {"a": ""}), gold)
