"""The watched place and labelled feedback reach data/raw/ whole and valid, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows import intake
from flows.look import Look, Memory, look
from rag.artifacts import Artifacts
from rag.errors import DataError, RagError
from rag.monitoring.feedback import Feedback, add_feedback
from rag.params import Params, parse_params
from tests.flows.conftest import Done

NOW = datetime.now(UTC) + timedelta(hours=1)


def question(name: str, document: str) -> str:
    return json.dumps({"id": name, "question": name, "answers": ["noon"], "document": document})


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    found = Artifacts(tmp_path)
    (found.raw / "documents").mkdir(parents=True)
    (found.raw / "documents" / "a.md").write_text("It sails at noon.")
    (found.raw / "questions.jsonl").write_text(question("q1", "a.md"))
    return found


@pytest.fixture
def incoming(artifacts: Artifacts) -> Path:
    folder = artifacts.root / "incoming"
    (folder / "documents").mkdir(parents=True)
    (folder / "documents" / "b.md").write_text("It lands at noon.")
    return folder


def watching(least: int = 2) -> Params:
    return parse_params({"watch": {"incoming": "incoming", "min_new_questions": least}})


def correct(artifacts: Artifacts, text: str, document: str = "a.md", answer: str = "noon") -> None:
    add_feedback(artifacts, Feedback("t", text, False, answer=answer, document_id=document))


def held(artifacts: Artifacts) -> list[str]:
    path = artifacts.raw / intake.FEEDBACK_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted(json.loads(line)["question"] for line in lines)


def test_new_files_are_added_and_then_known(artifacts: Artifacts, incoming: Path) -> None:
    params = watching()
    assert intake.take_in(artifacts, params, everything=False) == "1 files of incoming"
    names = {path.relative_to(artifacts.raw).as_posix() for path in artifacts.raw.rglob("*.*")}
    assert names == {"documents/a.md", "documents/b.md", "questions.jsonl"}
    assert intake.take_in(artifacts, params, everything=True) == "nothing new"
    (incoming / "documents" / "a.md").write_text("It sails at noon, not at one.")
    assert intake.take_in(artifacts, params, everything=False) == "2 files of incoming"
    assert "not at one" in (artifacts.raw / "documents" / "a.md").read_text()


def test_bad_files_change_nothing(artifacts: Artifacts, incoming: Path) -> None:
    (incoming / "more.jsonl").write_text('{"id": "q2"}')
    with pytest.raises(DataError, match=r"more\.jsonl"):
        intake.take_in(artifacts, watching(), everything=False)
    assert not (artifacts.raw / "documents" / "b.md").exists()
    assert intake.taken(artifacts, "incoming") is None
    assert not list(artifacts.state.glob("intake-*")), "nothing stays behind"


def test_labelled_questions_wait_for_company_or_for_a_trigger(artifacts: Artifacts) -> None:
    params = parse_params({"watch": {"min_new_questions": 2}})
    correct(artifacts, "When?")
    assert intake.take_in(artifacts, params, everything=False) == "nothing new"
    correct(artifacts, "Whence?")
    assert intake.take_in(artifacts, params, everything=False) == "2 labelled questions"
    assert held(artifacts) == ["When?", "Whence?"]
    correct(artifacts, "Whither?")
    correct(artifacts, "When?", answer="sails at noon")
    assert {row["question"] for row in intake.waiting_questions(artifacts).values()} == {
        "When?",
        "Whither?",
    }
    intake.take_in(artifacts, parse_params({}), everything=True)
    assert held(artifacts) == ["When?", "Whence?", "Whither?"]
    assert intake.waiting_questions(artifacts) == {}


def test_a_question_about_a_document_that_is_gone_stops_nothing(artifacts: Artifacts) -> None:
    correct(artifacts, "When?")
    correct(artifacts, "Where?", document="gone.md")
    said = intake.take_in(artifacts, Params(), everything=True)
    assert said == "2 labelled questions, 1 left out, their documents are gone"
    assert held(artifacts) == ["When?"]


def statuses(found: Look) -> dict[str, str]:
    return {trigger.name: trigger.status for trigger in found.triggers}


def test_a_look_judges_each_trigger_and_writes_nothing(
    artifacts: Artifacts, incoming: Path
) -> None:
    correct(artifacts, "When?")
    before = sorted(path for path in artifacts.root.rglob("*"))
    found = look(artifacts, watching(), NOW)
    assert statuses(found) == {
        "new_data": "fires",
        "new_questions": "quiet",
        "query_drift": "off",
        "abstention": "off",
        "retrieval_score": "off",
        "metric_decay": "off",
    }
    assert sorted(path for path in artifacts.root.rglob("*")) == before


def test_one_that_cannot_look_hides_no_other(artifacts: Artifacts) -> None:
    correct(artifacts, "When?")
    found = look(artifacts, watching(least=1), NOW)
    assert statuses(found)["new_data"] == "failed"
    assert [trigger.name for trigger in found.firing] == ["new_questions"]
    assert "incoming is no folder" in found.failed[0].summary


def test_after_a_start_the_cool_down_holds(artifacts: Artifacts, incoming: Path) -> None:
    found = look(artifacts, watching(), NOW)
    found.memory.after_start(artifacts, found.firing, NOW).write(artifacts)
    assert statuses(look(artifacts, watching(), NOW + timedelta(hours=5)))["new_data"] == "held"
    assert statuses(look(artifacts, watching(), NOW + timedelta(hours=7)))["new_data"] == "fires"


def test_a_run_at_work_holds_back(artifacts: Artifacts, incoming: Path) -> None:
    from flows import lock

    with lock.hold(artifacts.lock, "ragloop run"):
        found = look(artifacts, watching(), NOW)
    assert found.triggers[0].status == "held"
    assert "ragloop run is at work" in found.triggers[0].summary


def test_a_damaged_memory_says_what_to_do(artifacts: Artifacts) -> None:
    artifacts.state.mkdir()
    artifacts.watch.write_text('{"served": ')
    with pytest.raises(RagError, match="remove it"):
        Memory.read(artifacts)


def test_feedback_by_hand(
    artifacts: Artifacts, ragloop_here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag.monitoring.query_log import log_queries
    from rag.records import Answer, Evidence
    from rag.watch_params import WatchParams

    (artifacts.root / "params.yaml").write_text("seed: 13\n")
    for name in [name for name in os.environ if name.startswith("MLFLOW")]:
        monkeypatch.delenv(name)
    answer = Answer("noon", -0.1, False, (Evidence("c", "a.md", "x", 0.5, 1),))
    [key] = log_queries(artifacts, WatchParams(query_log=True), ["When?"], [answer])
    done = ragloop_here(artifacts.root, "feedback", key, "--right", "--json")
    assert done.code == 0
    row = json.loads(done.out)
    assert (row["question"], row["right"], row["query_id"]) == ("When?", True, key)
    done = ragloop_here(artifacts.root, "feedback", "when", "--answer", "at one", "--json")
    row = json.loads(done.out)
    assert (row["query_id"], row["right"], row["labelled"]) == (key, False, False)
    assert ragloop_here(artifacts.root, "feedback", "When?", "--right", "--wrong").code == 2
    assert ragloop_here(artifacts.root, "feedback", "When?").code == 2
    done = ragloop_here(artifacts.root, "feedback", "q-0123456789abcdef", "--right")
    assert done.code == 2
    assert "no logged query q-0123456789abcdef" in done.err
