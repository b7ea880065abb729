"""`ragloop score` as it is typed: options, SQuAD 2.0's thresholds and splits, slices, the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.cli import app
from flows.scores import print_scores, scores_table, slices_table
from rag.evaluation.score_files import SMALL_SLICE, score_files

REFERENCES = [
    {"id": "a", "answers": ["Sea Eagle"], "kind": "name"},
    {"id": "b", "answers": ["2019"], "kind": "date"},
    {"id": "c", "answers": [], "answerable": False, "kind": "date"},
    {"id": "d", "answers": [], "answerable": False, "kind": "name"},
]
PREDICTIONS = {"a": "Sea Eagle", "b": "2018", "c": "Ashby", "d": ""}
NO_ANSWER = {"a": 0.1, "b": 0.7, "c": 0.8, "d": 0.2}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REFERENCES))
    (tmp_path / "p.json").write_text(json.dumps(PREDICTIONS))
    (tmp_path / "n.json").write_text(json.dumps(NO_ANSWER))
    return [str(tmp_path / name) for name in ("p.json", "r.jsonl", "n.json")]


def score(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["score", *arguments, "--json", "--resamples", "40"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def values(part: dict[str, Any]) -> tuple[float, float]:
    return part["metrics"]["exact_match"]["value"], part["metrics"]["f1"]["value"]


def test_splits_are_those_of_squad_2(files: list[str]) -> None:
    found = score(*files[:2])
    assert values(found) == (50.0, 50.0)  # a, and d by silence
    assert found["splits"]["has_answer"]["n"] == found["splits"]["no_answer"]["n"] == 2
    assert values(found["splits"]["has_answer"]) == (50.0, 50.0)
    assert values(found["splits"]["no_answer"]) == (50.0, 50.0)
    # Over the answerable questions anyway: the same numbers, the same resamples.
    assert found["splits"]["has_answer"]["metrics"]["bleu"] == found["metrics"]["bleu"]
    assert list(found["splits"]["no_answer"]["metrics"]) == ["exact_match", "f1"]
    assert "no_answer" not in found
    assert "slices" not in found


def test_a_threshold_declines_what_is_above_it(files: list[str]) -> None:
    scores, at = ["--no-answer-scores", files[2]], "--no-answer-threshold"
    found = score(*files[:2], *scores, at, "0.5")
    assert values(found) == (75.0, 75.0)  # c is declined, rightly; b too, and was wrong anyway
    assert values(score(*files[:2], *scores, at, "0.7")) == (75.0, 75.0)  # b at 0.7 is not above
    assert values(score(*files[:2], *scores, at, "0.05")) == (50.0, 50.0)
    # From declining everything (2 of 4) upwards: a +1, d 0, b 0, c -1.
    assert found["no_answer"] == {
        "threshold": 0.5,
        "best_exact": 75.0,
        "best_exact_thresh": 0.1,
        "best_f1": 75.0,
        "best_f1_thresh": 0.1,
    }
    assert score(*files[:2], *scores)["no_answer"]["threshold"] is None
    assert values(score(*files[:2], *scores)) == (50.0, 50.0)


def test_slices_by_a_key_of_the_references(files: list[str]) -> None:
    slices = score(*files[:2], "--by", "kind")["slices"]["kind"]
    assert list(slices) == ["date", "name"]
    assert {name: (part["n"], part["small"]) for name, part in slices.items()} == {
        "date": (2, True),
        "name": (2, True),
    }
    assert values(slices["name"]) == (100.0, 100.0)
    assert values(slices["date"]) == (0.0, 0.0)
    assert SMALL_SLICE > 2


def test_scores_of_each_question_are_kept(files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    found = score(*files[:2], "--per-question", str(path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["exact_match"] for row in rows] == [1.0, 0.0, 0.0, 1.0]
    assert [row["rouge2"] for row in rows] == [1.0, 0.0, None, None]
    for name in ("exact_match", "f1", "rouge1", "rougeL"):
        kept = [row[name] for row in rows if row[name] is not None]
        assert found["metrics"][name]["value"] == pytest.approx(
            100 * sum(kept) / len(kept), abs=1e-4
        )


def test_seed_resamples_and_confidence_are_said_and_used(files: list[str]) -> None:
    one = score(*files[:2], "--seed", "3", "--confidence", "0.5")
    drawn = {"resamples": 40, "confidence": 0.5, "seed": 3, "method": "expanded"}
    assert one["resampling"] == drawn
    wide = score(*files[:2], "--seed", "3", "--confidence", "0.99")["metrics"]["f1"]
    assert wide["high"] - wide["low"] > one["metrics"]["f1"]["high"] - one["metrics"]["f1"]["low"]
    assert score(*files[:2], "--seed", "3", "--confidence", "0.5") == one


def test_stemming_is_for_rouge_alone(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": "a", "answers": ["sailing boats"]}\n')
    (tmp_path / "p.json").write_text('{"a": "sailed boat"}')
    files = [str(tmp_path / "p.json"), str(tmp_path / "r.jsonl")]
    plain, stemmed = score(*files)["metrics"], score(*files, "--stem")["metrics"]
    assert (plain["rouge1"]["value"], stemmed["rouge1"]["value"]) == (0.0, 100.0)
    assert plain["f1"] == stemmed["f1"]


def test_the_table_reads_in_plain_text(files: list[str]) -> None:
    found = score_files(
        Path(files[0]), Path(files[1]), resamples=40, by="kind", no_answer_scores=Path(files[2])
    )
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        console.print(scores_table(found))
        console.print(slices_table("kind", found["slices"]["kind"], list(found["metrics"])))
    lines = captured.get().splitlines()
    assert lines[0].startswith("4 questions, 2 with an answer; percent (0.95 intervals of 40")
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert rows["F1"][1] == "50.0"
    assert rows["BLEU"][-1] == "-"  # of questions without an answer
    assert rows["date"][1:3] == ["2,", "few"]


def test_questions_without_a_prediction_are_shown(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.json").write_text('{"a": "Sea Eagle"}')
    found = score_files(
        Path(files[0]), Path(files[1]), resamples=40, no_answer_scores=Path(files[2])
    )
    print_scores(found)
    printed = capsys.readouterr().out
    assert "3 of 4 questions have no prediction and count as wrong: b, c, d" in printed
    assert "best threshold for no answer by F1: 0.1 gives 25.0" in printed
    assert "BLEU: case:mixed|eff:yes|tok:13a|smooth:exp|version:" in printed


def test_scoring_loads_no_library_that_it_does_not_need(files: list[str]) -> None:
    """Starting is a third of the time for ten thousand answers."""
    code = (
        "import sys\nsys.argv = ['ragloop', *sys.argv[1:]]\nfrom flows import cli\ntry:\n"
        "    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted(sys.modules), file=sys.stderr)\n"
    )
    arguments = ["score", *files[:2], "--json", "--resamples", "5"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))
    assert json.loads(done.stdout)["n_questions"] == 4
    unneeded = {"evaluate", "mlflow", "pandas", "prefect", "rouge_score", "nltk", "torch"}
    assert not loaded & (unneeded | {"datasets", "pyarrow", "rich", "transformers"})
    assert "rag.params" not in loaded
