"""Programs over a releasing project: a release that is judged, approved, and told of."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows import approval, compare, history, promote
from rag.evaluation.scoring import prediction_rows
from rag.params import CostParams, GateMode, GateParams, Params
from rag.records import PREDICTIONS, QUESTIONS, Answer, Passage, Question, write_table
from rag.release import ledger, registry
from rag.release.mirror import mirror_row, mirrored_head
from rag.stages import build_index
from rag.tracking import RunTracker
from tests.releasing_project import QUESTION, opened, write_edition

TEST = [
    Question(f"q{i}", f"{QUESTION} {i}", ("the red boat",), f"d{i}", True, "test", "en")
    for i in range(8)
]


def judged(root: Path, colour: str, mode: GateMode) -> dict[str, Any]:
    """A retraining from the index to the ledger; its answers are all right. The row, and more."""
    artifacts, params = opened(root)
    params = _with_gate(params, mode)
    write_edition(artifacts, params, colour)
    write_table(TEST, QUESTIONS, artifacts.questions)
    found = [[Passage(f"c{i}", f"d{i}", "the red boat", 1.0, 1)] for i in range(len(TEST))]
    right = [Answer("the red boat", -0.1, abstained=False) for _ in TEST]
    rows = prediction_rows("tuned", TEST, right, retrieved=found)
    write_table(rows, PREDICTIONS, artifacts.predictions)
    tags = {"run_key": colour, "data_hash": colour, "fingerprint": build_index(params, artifacts)}
    champion = registry.champion(params)
    assert champion is not None
    answers = compare.champion_predictions(artifacts, params, champion)
    mixed = compare.mixed_predictions(artifacts, params, champion)
    sample = compare.measure_cost(artifacts, params, champion)
    verdict = compare.judge(artifacts, params, answers, mixed, sample)
    tracker = RunTracker.open(artifacts, params, key=colour, name=colour, tags=tags)
    record = compare.keep(verdict, tracker.run_id)
    tracker.log_decision({**verdict.decision.to_json(), **record, "tags": tags})
    row = promote.conclude(
        artifacts,
        params,
        verdict.decision,
        key=colour,
        run_id=tracker.run_id,
        tags=tags,
        champion=champion,
        record=record,
    )
    mirror_row(params, row)
    tracker.finish()
    return {
        "row": row,
        "why": mixed.why,
        "mixed": {name: table.num_rows for name, table in mixed.arms.items()},
        "evidence": {
            name: colour
            for table in (answers, *mixed.arms.values())
            for name, colour in _colours(table).items()
        },
        "cost": asdict(sample),
        **_state(artifacts, params),
    }


def approve(
    root: Path, version: str, reason: str = "it was tried by hand", how: str = ""
) -> dict[str, Any]:
    """`ragloop promote`; `how` is override or decline."""
    artifacts, params = opened(root)
    row = approval.promote(
        artifacts,
        params,
        version,
        actor="Ada",
        reason=reason,
        override=how == "override",
        decline=how == "decline",
    )
    return {"row": row, **_state(artifacts, params)}


def told(root: Path, moment: str, sequence: int) -> dict[str, Any]:
    """What `ragloop releases` says with --at, --verify and --replay."""
    artifacts, params = opened(root)
    return {
        "at": history.at(artifacts, moment),
        "verify": history.verify(artifacts, params),
        "replay": history.replay(artifacts, params, sequence),
    }


def _with_gate(params: Params, mode: GateMode) -> Params:
    gate = GateParams(
        mode=mode,
        floors={"f1": 10.0},
        resamples=1000,
        max_length_ratio=None,
        cost=CostParams(questions=3, rounds=2, p50_ratio=20.0, p95_ratio=None, memory_ratio=3.0),
    )
    return params.model_copy(update={"gate": gate})


def _colours(table: Any) -> dict[str, list[str]]:
    rows = table.to_pylist()
    best = {row["evidence"][0]["document_id"].partition("-")[0] for row in rows}
    return {rows[0]["system"]: sorted(best)}


def _state(artifacts: Any, params: Params) -> dict[str, Any]:
    live, waiting = registry.champion(params), registry.challenger(params)
    return {
        "champion": live.version if live else None,
        "challenger": waiting.version if waiting else None,
        "rows": ledger.read(artifacts.ledger),
        "head": mirrored_head(params),
    }
