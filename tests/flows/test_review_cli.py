"""`ragloop review` from the sheet to the gate: what is asked, what is refused, what is counted."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flows import review_gate
from flows.lineage import pipeline_hash
from rag.artifacts import Artifacts
from rag.evaluation.scoring import prediction_rows
from rag.params import load_params
from rag.records import PREDICTIONS, Answer, Question, read_table, write_table
from rag.release import ledger
from tests.flows.conftest import Done
from tests.flows.programs import ROOT

Ragloop = Callable[..., Done]
N, SAME = 20, 8


@pytest.fixture
def project(tmp_path: Path) -> Artifacts:
    """A run without a champion: 20 questions, to 8 of which tuned and untuned said the same."""
    settings = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(settings.replace("resamples: 10000", "resamples: 1000"))
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    artifacts = Artifacts(tmp_path)
    questions = [
        Question(
            f"q{i:02}",
            f"Which {i}?",
            ("petrel",),
            f"d{i % 5}",
            True,
            "test",
            "en",
            {"long": i > 14},
        )
        for i in range(N)
    ]
    rows = []
    for system, other in (("tuned", "petrel"), ("zero_shot", "fulmar"), ("closed_book", "auk")):
        texts = ["same"] * SAME + [other] * (N - SAME)
        answers = [Answer(text, -0.5, abstained=False) for text in texts]
        rows += prediction_rows(system, questions, answers, retrieved=None)
    write_table(rows, PREDICTIONS, artifacts.predictions)
    decided = {
        "outcome": "PROMOTE",
        "key": "abc",
        "run_id": None,
        "version": "1",
        "champion": "1",
        "champion_before": None,
        "tags": {"dvc_lock": pipeline_hash(artifacts)},
        "decision": {},
    }
    ledger.append(artifacts.ledger, decided)
    return artifacts


@pytest.fixture
def review(project: Artifacts, ragloop_here: Ragloop) -> Callable[..., Any]:
    """The JSON that `ragloop review ...` prints, or its whole outcome where it fails."""

    def run(*arguments: str) -> Any:
        done = ragloop_here(project.root, "review", *arguments, "--json")
        return json.loads(done.out) if done.code == 0 else done

    return run


def fill(table: str, folder: Path, choose: Callable[[int, dict[str, str]], str]) -> Path:
    """The sheet as a rater hands it back; `choose` gives the verdict on a row."""
    with Path(table).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows):
        row["verdict"] = choose(place, row)
    path = folder / "filled.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def prefers(answer: str) -> Callable[[int, dict[str, str]], str]:
    return lambda _, row: "A" if row["answer_a"] == answer else "B"


def test_from_the_sheet_to_the_result(review: Callable[..., Any], project: Artifacts) -> None:
    drawn = review("sample", "--n", "6", "--seed", "3")
    assert (drawn["asked"], drawn["changed"], drawn["identical"], drawn["questions"]) == (
        6,
        12,
        8,
        20,
    )
    assert Path(drawn["page"]).name == "sheet.html"
    assert review("sample", "--n", "6", "--seed", "3") == {**drawn, "is_new": False}
    assert review("show", drawn["review"])["result"] is None
    assert review("show", drawn["review"])["judgements"] == []

    # Ann prefers the challenger's answer in the first five rows, and both are bad in the last.
    def ann(place: int, row: dict[str, str]) -> str:
        return "both bad" if place == 5 else prefers("petrel")(place, row)

    taken = review("import", str(fill(drawn["table"], project.root, ann)), "--rater", "Ann")
    result = taken["result"]
    assert (result["wins"], result["losses"], result["ties"], result["both_bad"]) == (5, 0, 0, 1)
    assert result["win_rate_changed"]["value"] == pytest.approx(100 * 5.5 / 6)
    assert result["win_rate"]["value"] == pytest.approx((12 * 100 * 5.5 / 6 + 8 * 50) / 20)
    assert result["agreement"] is None
    assert taken["mlflow"] is None, "the run of these answers is not in MLflow"

    ben = fill(drawn["table"], project.root, prefers("petrel"))
    taken = review("import", str(ben), "--rater", "Ben")
    assert taken["raters"] == ["Ann", "Ben"]
    assert taken["result"]["agreement"]["observed"] == pytest.approx(100 * 5 / 6)
    assert taken["result"]["judgements"] == 12
    shown = review("show", drawn["review"])
    assert len(shown["judgements"]) == 12
    assert {(row["challenger"], row["opponent"]) for row in shown["judgements"]} == {
        ("petrel", "fulmar")
    }
    (listed,) = review("list")
    assert listed["opponent"] == "zero_shot"
    assert listed["result"] == taken["result"]


def test_what_a_person_reads(
    review: Callable[..., Any], project: Artifacts, ragloop_here: Ragloop
) -> None:
    def printed(*arguments: str) -> str:
        done = ragloop_here(project.root, "review", *arguments)
        assert done.code == 0, done.err
        return done.out

    assert "No reviews yet" in printed("list")
    said = printed("sample", "--all", "--seed", "3")
    assert "12 of 12 answers that differ; 8 of 20 are the same and count as ties" in " ".join(
        said.split()
    )
    (row,) = review("list")
    assert "none yet" in printed("list")
    assert "nobody has judged yet" in printed("show", row["review"])
    table = project.root / f"review-{row['review']}" / "sheet.csv"
    filled = str(fill(str(table), project.root, prefers("petrel")))
    printed("import", filled, "--rater", "Ann")
    said = printed("import", filled, "--rater", "Ben")
    assert "24 wins, 0 losses, 0 both good, 0 both bad, by Ann, Ben" in said
    assert "win rate 80.0 (" in said, "12 won, 8 ties of 20"
    assert "Wilson score" in said
    assert "agreement 100.0 % of verdicts, Cohen's kappa 1.00" in said
    assert "not logged to MLflow" in said
    said = printed("show", row["review"])
    assert said.count("win Which ") == 24
    assert "challenger petrel" in said


def test_the_sheet_tells_nobody_who_is_who(review: Callable[..., Any], project: Artifacts) -> None:
    drawn = review("sample", "--all")
    folder = Path(drawn["page"]).parent
    assert sorted(path.name for path in folder.iterdir()) == ["sheet.csv", "sheet.html"]
    text = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    assert "tuned" not in text
    assert "zero_shot" not in text
    key = json.loads((project.reviews / drawn["review"] / "key.json").read_text())
    assert sorted(row["challenger"] for row in key["rows"]) == ["A"] * 6 + ["B"] * 6
    assert review("sample", "--all")["seed"] != drawn["seed"], "another seed each time"


def test_a_bad_file_changes_nothing(review: Callable[..., Any], project: Artifacts) -> None:
    drawn = review("sample", "--n", "4", "--seed", "3")
    path = fill(drawn["table"], project.root, lambda place, _: "AB?"[min(place, 2)])
    done = review("import", str(path), "--rater", "Ann")
    assert (done.code, done.out) == (2, "")
    assert done.errors[:2] == [
        f"error: {path}:4: row r3 has the verdict '?', expected one of A, B, tie, both_bad",
        f"error: {path}:5: row r4 has the verdict '?', expected one of A, B, tie, both_bad",
    ]
    assert review("show", drawn["review"])["raters"] == []
    done = review("import", str(fill(drawn["table"], project.root, lambda *_: "tie")))
    assert done.code == 2
    assert "does not say who judged" in done.err


def test_a_rater_judges_once(review: Callable[..., Any], project: Artifacts) -> None:
    drawn = review("sample", "--n", "4", "--seed", "3")

    def hand_in(verdict: str, *options: str) -> Any:
        path = fill(drawn["table"], project.root, lambda *_: verdict)
        return review("import", str(path), "--rater", "Ann", *options)

    assert hand_in("tie")["result"]["ties"] == 4
    assert hand_in("tie")["result"]["ties"] == 4, "the same file again"
    done = hand_in("4")
    assert done.code == 2
    assert "Ann has judged review" in done.err
    assert "4 rows differ" in done.err
    assert hand_in("4", "--replace")["result"]["both_bad"] == 4


def test_a_slice_alone(review: Callable[..., Any]) -> None:
    drawn = review("sample", "--all", "--slice", "long=true", "--seed", "3")
    assert (drawn["questions"], drawn["asked"], drawn["identical"]) == (5, 5, 0)
    assert review("list")[0]["where"] == {"long": ["true"]}
    done = review("sample", "--slice", "long")
    assert done.code == 2
    assert done.errors == ["error: --slice 'long': expected KEY=VALUE"]
    done = review("sample", "--slice", "long=maybe")
    assert done.code == 2
    assert done.errors == [
        "error: --slice long: no test question has all that was asked for; long is false, true"
    ]


def test_without_a_run_there_is_nothing_to_ask(ragloop_here: Ragloop, project: Artifacts) -> None:
    project.predictions.unlink()
    done = ragloop_here(project.root, "review", "sample")
    assert done.code == 2
    assert done.errors == [
        f"error: {project.predictions}: no answers yet",
        "ragloop run makes them.",
    ]
    done = ragloop_here(project.root, "review", "show", "0123456789ab")
    assert done.code == 2
    assert "none yet: ragloop review sample makes one" in done.err


@pytest.mark.parametrize("command", ["", "sample", "import", "list", "show"])
def test_every_command_has_help(ragloop_here: Ragloop, tmp_path: Path, command: str) -> None:
    done = ragloop_here(tmp_path, "review", *command.split(), "--help")
    assert done.code == 0
    assert "Usage:" in done.out


def test_the_gate_gets_every_review_of_the_answers_it_compares(
    review: Callable[..., Any], project: Artifacts
) -> None:
    table = read_table(project.predictions)
    tuned, untuned, closed = (table.slice(N * place, N) for place in range(3))
    baselines = {"zero_shot": untuned, "closed_book": closed}

    def checks(*settings: str) -> Any:
        params = load_params(project.params, settings)
        return review_gate.human_checks(project, params, tuned, None, baselines)

    on = "gate.human={min_judgements: 10}"
    params = load_params(project.params, [on])
    assert checks() == ()
    (waiting,) = checks(on)
    assert "nobody has judged the answers yet" in waiting.detail
    decided = {"decision": {"checks": [asdict(waiting)]}}
    assert not review_gate.has_news(project, params, decided)
    few = review("sample", "--n", "9", "--seed", "9")
    review("import", str(fill(few["table"], project.root, lambda *_: "tie")), "--rater", "few")
    assert not review_gate.has_news(project, params, decided), "nine are not enough to decide"
    shutil.rmtree(project.reviews)
    for seed, answer in ((1, "petrel"), (2, "fulmar")):
        drawn = review("sample", "--all", "--seed", str(seed))
        path = fill(drawn["table"], project.root, prefers(answer))
        review("import", str(path), "--rater", f"rater {seed}")
        (check,) = checks(on)
        assert check.name == "human against zero_shot"
        # All won: (12 * 100 + 8 * 50) / 20; then a win and a loss each: a half.
        assert check.value == {"petrel": 80.0, "fulmar": 50.0}[answer]
        assert check.passed is (answer == "petrel")
        assert review_gate.has_news(project, params, decided)
    again = {"decision": {"checks": [asdict(check)]}}
    assert not review_gate.has_news(project, params, again), "that is what was decided upon"
    assert not review_gate.has_news(project, params, {"decision": None})
    assert not review_gate.has_news(project, load_params(project.params), decided), "off"
    sliced = review("sample", "--all", "--slice", "long=true", "--seed", "3")
    review("import", str(fill(sliced["table"], project.root, prefers("petrel"))), "--rater", "x")
    assert checks(on)[0].value == 50.0, "a slice says nothing about the whole"
    (other,) = review_gate.human_checks(project, params, tuned, closed, {})
    assert "nobody has judged" in other.detail, "of other answers"
