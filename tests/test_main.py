"""`python -m rag STAGE`: usage and errors as a person sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rag.__main__ import main
from rag.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("arguments", [[], ["train"], ["prepare", "chunk"], ["--help"]])
def test_usage_names_every_stage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, *rest = shown.err.splitlines()
    assert first.startswith("usage: python -m rag STAGE")
    assert [line.split()[0] for line in rest] == [stage.name for stage in STAGES]


def test_bad_params_are_one_line_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "seed: -1\nreader: {lora: {rank: 0}}\nchunks: {}\n"
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["prepare"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    found = {line.split("params.yaml: ")[1].split(":")[0] for line in lines}
    assert found == {"seed", "reader.lora.rank", "chunks"}
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_without_a_project_there_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "rag", "prepare"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert found.stdout == ""
    [line] = found.stderr.splitlines()
    assert line.startswith("prepare: ")
    assert "params.yaml: no such file" in line


def test_an_empty_corpus_is_one_line_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text("seed: 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["prepare"]) == 2
    documents, questions = capsys.readouterr().err.splitlines()
    assert documents.startswith("prepare: raw: no usable documents found")
    assert questions.startswith("prepare: raw: no usable questions found")
    assert not (tmp_path / "data" / "prepare").exists()


def test_a_stage_may_work_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of a search do, beside the project's own data."""
    trial = tmp_path / "trial"
    trial.mkdir()
    (trial / "params.yaml").write_text("seed: -1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAGLOOP_ROOT", str(trial))
    assert main(["prepare"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("prepare: params.yaml: seed: ")
