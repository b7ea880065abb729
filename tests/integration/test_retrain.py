"""The main job on a toy corpus: retrained twice, changed, forced, served; and nothing calls home.

The tests stand in the order of a project's life; each needs those before it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from rag.stages import STAGES
from tests.integration.conftest import Finished, Project
from tests.toy import VARIANT

pytestmark = pytest.mark.integration

STAGE_NAMES = [stage.name for stage in STAGES]
CHAMPION = "select version from registered_model_aliases where alias = 'champion'"
VERSIONS = "select count(*) from model_versions"


def asked(project: Project) -> tuple[str, str, str]:
    """A question of the corpus, its answer and its document."""
    lines = (project.root / "data" / "demo" / "questions.jsonl").read_text().splitlines()
    row = next(row for row in map(json.loads, lines) if row["answers"])
    return row["question"], row["answers"][0], row["document"]


def outputs(project: Project) -> dict[str, str]:
    """The hash of every file that a stage writes."""
    data = project.root / "data"
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("prepare", "chunk", "models", "embed", "retrieve", "evaluate")
        for path in sorted((data / name).rglob("*"))
        if path.is_file() and path.name != ".gitignore"
    }


def test_the_first_run_promotes(project: Project, first_run: Finished) -> None:
    assert first_run.code == 0, first_run.err
    assert "Verdict: PROMOTE\n  version 1 is the champion now\n" in first_run.out
    assert "closed book" in first_run.out
    assert list(first_run.steps()) == [
        *("snapshot", *STAGE_NAMES, "publish", "log", "gate", "review", "release", "prune"),
        "push",
    ]
    assert set(first_run.steps().values()) == {"✓"}
    assert "Traceback" not in first_run.err
    assert "Warning" not in first_run.err
    assert project.mlflow(CHAMPION) == [(1,)]


@pytest.mark.usefixtures("first_run")
def test_nothing_was_reached_but_this_machine(project: Project) -> None:
    assert project.connections_refused() == []


@pytest.mark.usefixtures("first_run")
def test_the_refusal_itself_works(project: Project, tmp_path: Path) -> None:
    code = "import socket; socket.create_connection(('203.0.113.1', 80), timeout=1)"
    apart = {"NETWORK_ATTEMPTS": str(tmp_path / "attempts")}
    assert project.python("-c", code, variables=apart).returncode == 1
    assert (tmp_path / "attempts").read_text() == "203.0.113.1\n"


@pytest.mark.usefixtures("first_run")
def test_the_run_is_written_down_everywhere(project: Project) -> None:
    (row,) = project.ledger()
    assert (row["outcome"], row["version"], row["champion_before"]) == ("PROMOTE", "1", None)
    ((status, run_id),) = project.mlflow("select status, run_uuid from runs")
    assert (status, run_id) == ("FINISHED", row["run_id"])
    tags = dict(project.mlflow("select key, value from tags"))
    assert tags["ragloop.run_key"] == row["key"]
    assert tags["ragloop.decision"] == "PROMOTE"
    lock = hashlib.sha256((project.root / "dvc.lock").read_bytes()).hexdigest()
    assert tags["ragloop.dvc_lock"] == lock
    flow = project.prefect("select name, state_type, state_name from flow_run")
    assert flow == [(tags["ragloop.prefect_flow_run_name"], "COMPLETED", "Promote")]
    tasks = dict(project.prefect("select name, state_name from task_run"))
    assert set(tasks) >= {"snapshot", *STAGE_NAMES, "publish", "log", "gate", "release"}
    assert set(tasks.values()) == {"Completed"}
    assert project.prefect("select count(*) from artifact where key = 'verdict'") == [(1,)]
    logged = project.prefect("select message from log")
    assert not [text for (text,) in logged if "dvc push" in text]
    curve = project.mlflow("select count(*) from metrics where key = 'train/loss'")
    assert curve[0][0] > 3


@pytest.mark.usefixtures("first_run")
def test_the_second_run_finds_nothing_to_do(project: Project) -> None:
    before = outputs(project)
    second = project.ragloop("run")
    assert second.code == 0, second.err
    assert "SKIPPED" in second.out
    assert "nothing changed" in second.out
    assert second.steps() == {"snapshot": "✓"}
    assert second.seconds < 30
    assert outputs(project) == before
    assert project.mlflow(VERSIONS) == [(1,)]
    assert len(project.ledger()) == 1
    states = project.prefect("select state_type, state_name from flow_run order by created")
    assert states[-1] == ("COMPLETED", "Skipped")
    assert dvc_status(project) == {}


@pytest.mark.usefixtures("first_run")
def test_another_rank_repeats_only_what_reads_it(project: Project) -> None:
    done = project.ragloop("run", *[word for change in VARIANT for word in ("--set", change)])
    assert done.code == 0, done.err
    ran = {name for name, mark in done.steps().items() if mark == "✓"}
    assert ran & set(STAGE_NAMES) == {"train_reader", "evaluate"}
    assert "champion" in ran, "the champion answers today's questions too"
    row = project.ledger()[-1]
    assert (row["version"], row["champion_before"]) == ("2", "1")
    assert row["decision"]["compared_with"] == "champion"
    assert row["outcome"] in ("PROMOTE", "REJECT", "INCONCLUSIVE")
    expected = int(row["version"]) if row["outcome"] == "PROMOTE" else 1
    assert project.mlflow(CHAMPION) == [(expected,)]
    assert dvc_status(project) == {}, "params.yaml and dvc.lock agree"


@pytest.mark.usefixtures("first_run")
def test_the_second_release_knows_the_champion_before_it(project: Project) -> None:
    found = json.loads(project.ragloop("lineage", "2", "--json").out)
    (parent,) = found["parents"]["champions"]
    first = project.ledger()[0]
    assert (parent["version"], parent["run_id"]) == ("1", first["run_id"])
    assert (parent["decision"], parent["commit"]) == ("PROMOTE", first["tags"]["git_commit"])
    assert found["code"]["dirty"], "--set has changed params.yaml"
    assert found["code"]["uncommitted"] == [], "and no code"


@pytest.mark.usefixtures("first_run")
def test_the_final_report_and_traces_know_the_champion(project: Project) -> None:
    run_id = project.ledger()[-1]["run_id"]
    (folder,) = project.mlflow(f"select artifact_uri from runs where run_uuid = '{run_id}'")[0]
    page = (Path(folder.removeprefix("file://")) / "report.html").read_text()
    assert "Change on champion" in page
    assert "decision</h2>" in page
    of_run = (
        "from trace_info t join trace_request_metadata m using (request_id) "
        f"where m.key = 'mlflow.sourceRun' and m.value = '{run_id}'"
    )
    asked = project.mlflow(f"select count(*) {of_run}")[0][0]
    assert asked == len(
        json.loads((Path(folder.removeprefix("file://")) / "answers.json").read_text())["data"]
    )
    spans = project.mlflow(
        f"select count(*) from spans where trace_id in (select t.request_id {of_run})"
    )
    assert spans == [(3 * asked,)]
    ((note,),) = project.mlflow(
        f"select value from tags where key = 'mlflow.note.content' and run_uuid = '{run_id}'"
    )
    assert f"Traces: {asked} of {asked} test questions" in note


@pytest.mark.usefixtures("first_run")
def test_dvc_by_hand_gives_the_same_bytes(project: Project) -> None:
    before = outputs(project)
    done = project.python("-m", "dvc", "repro", "--force", variables=by_hand(project))
    assert done.returncode == 0, done.stderr
    assert outputs(project) == before
    assert len(before) > 15
    assert project.connections_refused() == []


@pytest.mark.usefixtures("first_run")
def test_bad_data_fails_the_run_and_changes_no_release(project: Project) -> None:
    champion, versions = project.mlflow(CHAMPION), project.mlflow(VERSIONS)
    questions = project.root / "data" / "raw" / "questions.jsonl"
    good = questions.read_bytes()
    questions.unlink()  # DVC's own link to its cache stays as it is
    questions.write_bytes(good + b'{"id": "broken", \n')
    lines = len(good.splitlines())
    done = project.ragloop("run")
    questions.write_bytes(good)
    assert done.code == 2
    assert done.out == ""
    assert done.steps()["prepare"] == "✗"
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert f"questions.jsonl:{lines + 1}: " in errors[0]
    assert (project.mlflow(CHAMPION), project.mlflow(VERSIONS)) == (champion, versions)
    assert project.mlflow("select status from runs order by start_time")[-1] == ("FAILED",)
    states = project.prefect("select state_name from flow_run order by created")
    assert states[-1] == ("Failed",)
    assert "questions.jsonl" in str(project.prefect("select message from log order by timestamp"))


@pytest.mark.usefixtures("first_run")
def test_the_champion_answers_on_the_command_line(project: Project) -> None:
    question, answer, document = asked(project)
    answered = project.ragloop("ask", question, "--json")
    assert answered.code == 0, answered.err
    found = json.loads(answered.out)
    assert found["evidence"][0]["document_id"] == document
    assert found["answer"] == answer or found["abstained"]
    searched = json.loads(project.ragloop("search", question, "--limit", "2", "--json").out)
    assert [row["rank"] for row in searched["passages"]] == [1, 2]
    assert searched["passages"][0]["document_id"] == document
    rows = json.loads(project.ragloop("releases", "--json").out)
    assert [row["version"] for row in rows] == ["2", "1"]
    assert sum("champion" in row["alias"] for row in rows) == 1


@pytest.mark.usefixtures("first_run")
def test_mlflow_serves_the_champion_in_a_fresh_process(project: Project) -> None:
    question, _, document = asked(project)
    code = (
        "import json, mlflow\n"
        "model = mlflow.pyfunc.load_model('models:/ragloop@champion')\n"
        f"print(json.dumps(model.predict([{question!r}])))\n"
    )
    uri = f"sqlite:///{project.root}/.ragloop/mlflow.db"
    variables = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_OFFLINE": "1",
        "RAGLOOP_STATE": str(project.root / ".ragloop" / "served"),
    }
    done = project.python("-c", code, variables=variables)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout.splitlines()[-1])
    assert answer["evidence"][0]["document_id"] == document
    assert project.connections_refused() == []


def dvc_status(project: Project) -> dict[str, object]:
    done = project.python("-m", "dvc", "status", "--json", variables=by_hand(project))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def by_hand(project: Project) -> dict[str, str]:
    """What a user has after activating the environment; the rest is in .dvc/config."""
    import os
    import sys

    programs = str(Path(sys.executable).parent)
    return {"PATH": os.pathsep.join([programs, project.environment["PATH"]])}
