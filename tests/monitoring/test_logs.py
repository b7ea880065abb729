"""The query log and the feedback: what is kept, for how long, and what becomes a question."""

from __future__ import annotations

import json
import logging
import multiprocessing
from pathlib import Path

import pytest

from rag.artifacts import Artifacts
from rag.monitoring import bounded_log
from rag.monitoring.feedback import (
    Feedback,
    add_feedback,
    document_with,
    labelled_questions,
    read_feedback,
)
from rag.monitoring.query_log import is_query_id, log_queries, path_of, read_queries, release_of
from rag.records import CHUNKS, Answer, Chunk, Evidence, write_table
from rag.watch_params import WatchParams

ON = WatchParams(query_log=True)


def answer(*, abstained: bool = False, score: float = -0.25) -> Answer:
    evidence = (Evidence("c1", "a.md", "noon", 0.75, 1), Evidence("c2", "a.md", "x", 0.5, 2))
    return Answer("" if abstained else "noon", score, abstained, evidence)


def test_the_log_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert log_queries(Artifacts(tmp_path), WatchParams(), ["When?"], [answer()]) == []
    assert not (tmp_path / ".ragloop").exists()


def test_a_row_has_the_question_and_its_scores_and_nothing_of_who_asked(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    [key] = log_queries(artifacts, ON, ["Wann fährt die Fähre?"], [answer(abstained=True)])
    [row] = read_queries(artifacts)
    assert is_query_id(key)
    assert row.pop("time").endswith("+00:00")
    assert row == {
        "id": key,
        "release": "44136fa355b3",  # printf '{}' | sha256sum
        "question": "Wann fährt die Fähre?",
        "top_score": 0.75,
        "abstained": True,
        "answer_score": -0.25,
        "documents": ["a.md"],
    }
    assert read_queries(artifacts, release_of(artifacts)) != []
    assert read_queries(artifacts, "another") == []


def test_an_answer_is_given_although_it_cannot_be_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.state.mkdir()
    artifacts.queries.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert log_queries(artifacts, ON, ["When?"], [answer()]) == []
    assert "queries cannot be logged" in caplog.text


def test_the_log_stays_within_its_size_and_keeps_the_newest_half(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for number in range(500):
        bounded_log.append(path, [{"n": number, "text": "x" * 50}], 10_000)
        size = sum(part.stat().st_size for part in tmp_path.glob("log.jsonl*"))
        assert size <= 10_000
    numbers = [row["n"] for row in bounded_log.read(path)]
    assert numbers == list(range(numbers[0], 500))
    assert len(numbers) > 60  # 5,000 bytes of about 70 each


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    bounded_log.append(path, [{"n": 1}], 10_000)
    with path.open("a") as file:
        file.write('{"n": 2, "te')
    bounded_log.append(path, [{"n": 3}], 10_000)
    assert bounded_log.read(path) == [{"n": 1}, {"n": 3}]


def _append_many(path: Path, who: int) -> None:
    for number in range(100):
        bounded_log.append(path, [{"who": who, "n": number}], 1_000_000)


def test_processes_do_not_break_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    workers = [multiprocessing.Process(target=_append_many, args=(path, who)) for who in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = sorted((row["who"], row["n"]) for row in bounded_log.read(path))
    assert found == [(who, number) for who in range(3) for number in range(100)]


def test_a_correction_with_its_document_is_a_labelled_question(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    add_feedback(artifacts, Feedback("t1", "When?", right=True))
    add_feedback(artifacts, Feedback("t2", "Where?", False, answer="pier 1", document_id="a.md"))
    add_feedback(artifacts, Feedback("t3", "where ?", False, answer="pier 2", document_id="a.md"))
    add_feedback(artifacts, Feedback("t4", "Who?", right=False, answer="Ann"))
    rows = read_feedback(artifacts)
    assert [row.right for row in rows] == [True, False, False, False]
    [question] = labelled_questions(rows).values()
    assert question.pop("id").startswith("feedback-")
    assert question == {
        "question": "where ?",
        "answers": ["pier 2"],
        "document": "a.md",
        "source": "feedback",
    }


def test_the_document_of_a_correction_is_the_first_shown_one_that_says_it(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    texts = {"a.md": "It sails at noon.", "b.md": "It sails from Pier\n2.", "c.md": "Pier 2."}
    chunks = [Chunk(f"{name}-0", name, 0, text, 5) for name, text in texts.items()]
    artifacts.chunks.parent.mkdir(parents=True)
    write_table(chunks, CHUNKS, artifacts.chunks)
    query = {"documents": ["a.md", "b.md", "c.md"]}
    assert document_with(artifacts, "pier 2", query) == "b.md"
    assert document_with(artifacts, "pier 3", query) is None
    assert document_with(artifacts, "pier 2", None) is None


def test_the_log_is_json_lines(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    log_queries(artifacts, ON, ["a", "b"], [answer(), answer()])
    lines = path_of(artifacts).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["question"] for line in lines] == ["a", "b"]
