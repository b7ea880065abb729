"""A decision made again from what was kept gives the same record, or says that it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.errors import ReleaseError
from rag.params import CostParams
from rag.records import sorted_json
from rag.release.attribution import OLD_INDEX, OLD_MODEL
from rag.release.cost import CostSample
from rag.release.decision import Check
from rag.release.gate import Context
from rag.release.replay import Inputs, differences_of, replay, write_inputs
from tests.release.test_gate import BAD, GOOD, MIDDLING, PARAMS, predictions

REVIEW = Check("review", "preferred", 60.0, 52.0, 68.0, 50.0, True, "people prefer it")
FULL = Inputs(
    challenger=predictions(GOOD),
    champion=predictions(MIDDLING),
    baselines={"zero_shot": predictions(BAD)},
    context=Context(
        decisions_before=4,
        cost=CostSample((0.1, 0.2, 0.3), (0.1, 0.25, 0.3), 100, 110),
        checks=(REVIEW,),
        mixed={OLD_MODEL: predictions(MIDDLING), OLD_INDEX: predictions(GOOD)},
    ),
)
EMPTY = Inputs(FULL.challenger, None, {"zero_shot": predictions([])}, Context())
FIRST = Inputs(FULL.challenger, None, FULL.baselines, Context(unmixed="no champion"))
REFRESHED = Inputs(
    FULL.challenger, predictions(GOOD), {}, Context(refresh=True, cost=FULL.context.cost)
)
BROKEN = Inputs(predictions(GOOD, f1=[float("nan")] * 40), FULL.champion, {}, FULL.context)


def kept(folder: Path, inputs: Inputs) -> dict[str, Any]:
    """The ledger row of a decision, as it is read from the file."""
    decision = inputs.decide(PARAMS.model_copy(update={"cost": CostParams()}), seed=7)
    files = write_inputs(folder, inputs)
    row = {"sequence": 1, "decision": decision.to_json(), "inputs": {"files": files}}
    return dict(json.loads(sorted_json(row)))


@pytest.mark.parametrize(
    ("inputs", "outcome"),
    [
        (FULL, "PROMOTE"),
        (FIRST, "PROMOTE"),
        (REFRESHED, "PROMOTE"),
        (BROKEN, "ERROR"),
        (EMPTY, "ERROR"),
    ],
    ids=["full", "first", "refreshed", "error", "empty"],
)
def test_the_same_inputs_give_the_same_record(tmp_path: Path, inputs: Inputs, outcome: str) -> None:
    row = kept(tmp_path, inputs)
    assert row["decision"]["outcome"] == outcome
    again = replay(tmp_path, row)
    assert json.loads(sorted_json(again.to_json())) == row["decision"]
    assert differences_of(again, row["decision"]) == []


def test_a_record_that_was_changed_is_told_from_what_the_gate_says(tmp_path: Path) -> None:
    row = kept(tmp_path, FULL)
    row["decision"]["params"]["min_effect"] = 90.0
    found = differences_of(replay(tmp_path, row), row["decision"])
    assert found == ["outcome: was PROMOTE, is REJECT", "reasons: another", "checks: another"]


def test_inputs_that_were_changed_are_refused(tmp_path: Path) -> None:
    row = kept(tmp_path, FULL)
    write_inputs(tmp_path, FIRST)
    with pytest.raises(ReleaseError, match="not what was judged"):
        replay(tmp_path, row)
    with pytest.raises(ReleaseError, match="no decision with its inputs"):
        replay(tmp_path, {"sequence": 3})


def test_equal_inputs_are_equal_bytes(tmp_path: Path) -> None:
    assert write_inputs(tmp_path / "a", FULL) == write_inputs(tmp_path / "b", FULL)
