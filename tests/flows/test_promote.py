"""What the gate is shown, and what the ledger says of a run that gives the champion again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import compare, promote
from flows.key import SAME, concluded_row
from rag.artifacts import Artifacts
from rag.evaluation.scoring import prediction_rows
from rag.params import Params, parse_params
from rag.records import PREDICTIONS, QUESTIONS, Answer, Passage, Question, write_table
from rag.release import ledger
from rag.release.gate import Decision, Outcome
from rag.release.registry import ReleaseVersion

CHAMPION = ReleaseVersion(
    name="ragloop",
    version="3",
    run_id="run",
    model_id="model",
    created="2026-11-22T03:00:00+00:00",
    tags={"run_key": "abc", "data_hash": "d"},
)


def settings(*baselines: str) -> Params:
    gate = {"floors": {"f1": 30.0}, "guards": {}, "resamples": 1000}
    return parse_params({"evaluate": {"baselines": list(baselines), "oracle": True}, "gate": gate})


@pytest.fixture
def evaluated(tmp_path: Path) -> Artifacts:
    """20 questions: tuned answers 15, zero-shot 5, one-shot and the oracle all of them."""
    questions = [
        Question(f"q{i:02}", f"Which {i}?", ("petrel",), f"d{i}", True, "test", "en")
        for i in range(20)
    ]
    found = [[Passage(f"c{i}", f"d{i}", "A petrel.", 1.0, 1)] for i in range(20)]
    rows = []
    for system, right in (("tuned", 15), ("zero_shot", 5), ("one_shot", 20), ("oracle", 20)):
        texts = ["petrel"] * right + ["fulmar"] * (20 - right)
        answers = [Answer(text, -0.5, abstained=False) for text in texts]
        rows += prediction_rows(system, questions, answers, retrieved=found)
    artifacts = Artifacts(tmp_path)
    write_table(questions, QUESTIONS, artifacts.questions)
    write_table(rows, PREDICTIONS, artifacts.predictions)
    return artifacts


def decided(artifacts: Artifacts, *baselines: str) -> Decision:
    return compare.judge(artifacts, settings(*baselines), None).decision


def test_the_gate_never_compares_with_the_oracle(evaluated: Artifacts) -> None:
    decision = decided(evaluated, "zero_shot")
    assert decision.compared_with == "zero_shot"
    assert decision.outcome is Outcome.PROMOTE, "although the oracle answers more"


def test_a_better_baseline_keeps_a_release_back(evaluated: Artifacts) -> None:
    decision = decided(evaluated, "zero_shot", "one_shot")
    assert decision.compared_with == "zero_shot, one_shot"
    assert decision.outcome is Outcome.REJECT


def test_a_known_champion_is_noted_without_another_promotion(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    ledger.append(artifacts.ledger, {"outcome": "PROMOTE", "key": "abc", "version": "3"})
    ledger.append(artifacts.ledger, {"outcome": "REJECT", "key": "def", "version": "4"})
    promote.confirm_champion(artifacts, "abc", CHAMPION)
    rows = ledger.read(artifacts.ledger)
    assert [row["outcome"] for row in rows] == ["PROMOTE", "REJECT", SAME]
    assert rows[-1]["tags"] == {"run_key": "abc", "data_hash": "d"}
    assert concluded_row(rows, "abc") == rows[-1], "the next run has nothing to do"
