"""The verdict as people and programs read it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from flows import verdict
from flows.key import SAME
from flows.verdict import Verdict
from rag.artifacts import Artifacts

METRICS = {
    "n_questions": 26,
    "confidence": 0.95,
    "systems": {
        "tuned": {"f1": {"value": 61.25, "low": 57.94, "high": 64.4}},
        "closed_book": {"f1": {"value": 1.5, "low": 0.0, "high": 3.3}},
        "zero_shot": {
            "f1": {"value": 9.0, "low": 4.0, "high": 16.0},
            "recall@5": {"value": 91.0, "low": 77.0, "high": 100.0},
        },
    },
}
DECISION: dict[str, Any] = {
    "outcome": "PROMOTE",
    "reasons": ["f1 +52.2 points"],
    "checks": [],
    "compared_with": "zero_shot",
    "n_questions": 26,
    "params": {},
}


def promoted() -> Verdict:
    return Verdict(
        outcome="PROMOTE",
        reasons=("f1 +52.2 points",),
        key="abc",
        version="3",
        champion="3",
        metrics=METRICS,
        links={"report": "data/evaluate/report.html"},
        decision=DECISION,
    )


def printed(shown: Verdict, width: int = 100) -> str:
    text = io.StringIO()
    verdict.print_verdict(Console(file=text, width=width, highlight=False), shown)
    return text.getvalue()


def test_systems_stand_from_the_weakest_to_ours_with_intervals() -> None:
    lines = printed(promoted()).splitlines()
    header = next(line for line in lines if "tuned" in line and "closed" in line)
    assert header.split() == ["closed", "book", "untuned", "tuned"]
    f1 = next(line for line in lines if line.strip().startswith("f1"))
    assert f1.split() == ["f1", "1.5", "(0.0–3.3)", "9.0", "(4.0–16.0)", "61.2", "(57.9–64.4)"]
    recall = next(line for line in lines if "recall@5" in line)
    assert recall.split() == ["recall@5", "-", "91.0", "(77.0–100.0)", "-"]
    assert "26 test questions" in printed(promoted())


def test_the_decision_its_reasons_and_where_to_look_are_said() -> None:
    text = printed(promoted())
    assert "\nVerdict: PROMOTE\n  version 3 is the champion now\n" in text
    assert "· f1 +52.2 points" in text
    assert "data/evaluate/report.html" in text


def test_every_outcome_has_its_sentence() -> None:
    said = {
        outcome: verdict.headline(Verdict(outcome, (), "k", version="2", champion="1"))
        for outcome in ("REJECT", "INCONCLUSIVE", verdict.SKIPPED, SAME)
    }
    assert said["REJECT"] == "version 2 is kept as challenger; champion is version 1"
    assert said["INCONCLUSIVE"] == said["REJECT"]
    assert "nothing was trained" in said[verdict.SKIPPED]
    assert "version 1, again" in said[SAME]
    first = Verdict("REJECT", (), "k", version="1")
    assert verdict.headline(first).endswith("no champion yet")


def test_markdown_carries_the_same(tmp_path: Path) -> None:
    text = verdict.verdict_markdown(promoted())
    assert text.startswith("## PROMOTE: version 3 is the champion now")
    assert "61.2" in text
    assert "f1 +52.2 points" in text
    skipped = verdict.verdict_markdown(Verdict(verdict.SKIPPED, ("nothing changed",), "k"))
    assert "- nothing changed" in skipped
    assert not list(tmp_path.iterdir())


def test_json_has_everything() -> None:
    record = json.loads(json.dumps(promoted().to_json()))
    assert record["outcome"] == "PROMOTE"
    assert record["metrics"]["systems"]["tuned"]["f1"]["value"] == 61.25
    assert record["decision"] == DECISION


def test_a_skipped_run_shows_what_still_holds(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.metrics.parent.mkdir(parents=True)
    artifacts.metrics.write_text(json.dumps(METRICS))
    row = {"time": "2026-11-22T03:00:00+00:00", "outcome": "REJECT", "key": "abc", "champion": "1"}
    found = verdict.nothing_changed(artifacts, row, "2")
    assert (found.outcome, found.key) == (verdict.SKIPPED, "abc")
    assert found.champion == "2", "what is live now, not what was when the row was written"
    assert found.metrics == METRICS
    assert "2026-11-22T03:00:00" in found.reasons[0]
    assert "REJECT" in found.reasons[0]
    assert "--force" in found.reasons[1]
