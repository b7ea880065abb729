"""The command line: instant help, one line for each problem, exit codes, nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import lock, manual
from flows.cli import MAX_PROBLEMS, print_error
from rag.artifacts import Artifacts
from rag.errors import DataError, ParamsError
from rag.params import load_params
from tests.flows.conftest import Done
from tests.flows.programs import ROOT, ragloop

Ragloop = Callable[..., Done]

COMMANDS = (
    *("init", "run", "ask", "search", "releases", "rollback", "prune", "up", "index", "export"),
    *("lineage", "reproduce", "data", "score"),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has params and data, and has never run."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which any command may make."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_help_is_instant_and_names_every_command(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = ragloop(tmp_path, "--help")
        seconds.append(time.monotonic() - started)
    assert done.returncode == 0
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    "command",
    [*COMMANDS[:-2], "score", "data check", "data import", "index status", "index verify"],
)
def test_every_command_has_help(ragloop_here: Ragloop, command: str, tmp_path: Path) -> None:
    done = ragloop_here(tmp_path, *command.split(), "--help")
    assert done.code == 0
    assert "Usage:" in done.out


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["run", "--nonsense"], ["ask"], ["search", "x", "--limit", "0"]],
)
def test_wrong_usage_is_exit_code_2(
    ragloop_here: Ragloop, project: Path, arguments: list[str]
) -> None:
    before = content(project)
    done = ragloop_here(project, *arguments)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert content(project) == before


def test_outside_a_project_it_says_where_to_go(ragloop_here: Ragloop, tmp_path: Path) -> None:
    done = ragloop_here(tmp_path, "run")
    assert (done.code, done.out) == (2, "")
    assert done.errors == [
        f"error: {tmp_path}/params.yaml: no such file; run in the project's folder"
    ]


def test_all_bad_params_are_told_at_once(ragloop_here: Ragloop, project: Path) -> None:
    before = content(project)
    done = ragloop_here(project, "run", "--set", "reader.lora.rank=0", "--set", "reader.nonsense=1")
    assert done.code == 2
    lines = done.errors
    assert len(lines) == 2
    assert any("reader.lora.rank" in line and "got 0" in line for line in lines)
    assert any("reader.nonsense: unknown key" in line for line in lines)
    assert content(project) == before


@pytest.mark.parametrize(
    ("model", "reason"),
    [("./nowhere", "no such folder"), ("bundled:nothing", "unknown"), ("a/b", "pinned revision")],
)
def test_a_missing_model_stops_a_run_before_it_begins(
    ragloop_here: Ragloop, project: Path, model: str, reason: str
) -> None:
    before = content(project)
    done = ragloop_here(project, "run", "--set", f"reader.model={model}")
    assert done.code == 2
    assert len(done.errors) == 1
    assert reason in done.err
    assert content(project) == before


def test_without_a_repository_it_says_how_to_make_one(
    ragloop_here: Ragloop, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    done = ragloop_here(project, "init")
    assert done.code == 2
    assert len(done.errors) == 2
    assert "git init" in done.err


def test_a_busy_lock_is_exit_code_3_at_once(project: Path) -> None:
    with lock.hold(Artifacts(project).lock, "a test"):
        started = time.monotonic()
        run = ragloop(project, "run")
        taken_in = ragloop(project, "data", "import", str(ROOT / "data" / "demo"))
        seconds = time.monotonic() - started
    for done in (run, taken_in):
        assert done.returncode == 3
        assert f"busy: a test (pid {os.getpid()} on" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert seconds < 5
    assert not (project / "data").exists()


SAME_ID = b'{"id": "q0", "question": "Which?", "answers": ["Ashby"], "document": "auk.md"}'
BAD_ANSWER = b'{"id": "q1", "question": "Who?", "answers": ["Nobody"], "document": "auk.md"}'


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good corpus of one document and one question."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "documents").mkdir()
    (folder / "documents" / "auk.md").write_text("# Auk\n\nThe Auk sails from Ashby.\n")
    row = {"id": "q0", "question": "Where from?", "answers": ["Ashby"], "document": "auk.md"}
    (folder / "questions.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("questions.jsonl", b'{"id": "q1", "question": ', "questions.jsonl:2: "),
        ("questions.jsonl", BAD_ANSWER, "questions.jsonl:2: "),
        ("questions.jsonl", SAME_ID, "q0"),
        ("documents/tern.md", b"# T\xff\xfe", "tern.md"),
    ],
)
@pytest.mark.parametrize("command", ["check", "import"])
def test_bad_data_is_one_line_a_problem_and_changes_nothing(
    ragloop_here: Ragloop,
    project: Path,
    source: Path,
    command: str,
    *,
    file: str,
    line: bytes,
    reason: str,
) -> None:
    with (source / file).open("ab") as broken:
        broken.write(line)
    before = content(project)
    done = ragloop_here(project, "data", command, str(source))
    assert (done.code, done.out) == (2, ""), done.err
    assert len(done.errors) == 1
    assert reason in done.err
    assert content(project) == before


def test_good_data_is_taken_in_once(ragloop_here: Ragloop, project: Path) -> None:
    demo = str(ROOT / "data" / "demo")
    checked = ragloop_here(project, "data", "check", demo, "--json")
    assert checked.code == 0, checked.err
    taken = ragloop_here(project, "data", "import", demo, "--json")
    assert json.loads(taken.out) == json.loads(checked.out)
    assert (project / "data" / "raw" / "documents").is_dir()
    again = ragloop_here(project, "data", "import", demo)
    assert again.code == 2
    assert "--replace" in again.err
    assert ragloop_here(project, "data", "import", demo, "--replace").code == 0


def test_score_prints_json(ragloop_here: Ragloop, tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text(json.dumps({"a": "Ashby", "b": "Elgin"}))
    rows = [{"id": "a", "answers": ["Ashby"]}, {"id": "b", "answers": ["Hythe"]}]
    (tmp_path / "references.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ("predictions.json", "references.jsonl")
    found = json.loads(ragloop_here(tmp_path, "score", *files, "--json").out)
    assert found["n_questions"] == 2
    assert found["metrics"]["exact_match"]["value"] == 50.0
    missing = ragloop_here(tmp_path, "score", "nowhere.json", "references.jsonl")
    assert missing.code == 2
    assert len(missing.errors) == 1


def test_at_most_twenty_problems_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [f"questions.jsonl:{line}: bad" for line in range(1, 51)]
    print_error(DataError(problems, hint="mend them"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: questions.jsonl:1: bad"
    assert lines[MAX_PROBLEMS:] == ["... and 30 more", "mend them"]


def test_the_unexpected_is_one_line_too_unless_debug() -> None:
    code = "from flows import cli\ncli.app = lambda: 1 / 0\ncli.main()\n"
    for arguments, lines in (([], 1), (["--debug"], 6)):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "ZeroDivisionError: division by zero" in done.stderr
        assert (len(done.stderr.splitlines()) == 1) is (lines == 1)


def test_changes_are_written_with_every_comment_kept(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    changes = ["reader.lora.rank=8", "reader.abstain=-1.5", "index.url=null"]
    manual.write_changes(Artifacts(project), changes)
    after = (project / "params.yaml").read_text()
    changed = load_params(project / "params.yaml")
    assert (changed.reader.lora.rank, changed.reader.abstain) == (8, -1.5)
    assert comments(after) == comments(before)
    differing = [
        line
        for line in after.splitlines()
        if line.split() not in map(str.split, before.splitlines())
    ]
    assert [line.split()[:2] for line in differing] == [["abstain:", "-1.5"], ["rank:", "8"]]


def test_an_impossible_change_is_not_written(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    with pytest.raises(ParamsError):
        manual.write_changes(Artifacts(project), ["reader.lora.rank=0"])
    assert (project / "params.yaml").read_text() == before


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]
