"""What the ledger says of a run that gives the champion again."""

from __future__ import annotations

from pathlib import Path

from flows import promote
from flows.key import SAME, concluded_row
from rag.artifacts import Artifacts
from rag.release import ledger
from rag.release.registry import ReleaseVersion

CHAMPION = ReleaseVersion(
    name="ragloop",
    version="3",
    run_id="run",
    model_id="model",
    created="2026-11-22T03:00:00+00:00",
    tags={"run_key": "abc", "data_hash": "d"},
)


def test_a_promotion_that_a_crash_kept_from_the_ledger_is_added(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    promote.confirm_champion(artifacts, "abc", CHAMPION)
    (row,) = ledger.read(artifacts.ledger)
    assert (row["outcome"], row["key"], row["version"]) == ("PROMOTE", "abc", "3")
    assert row["tags"] == {"run_key": "abc", "data_hash": "d"}


def test_a_known_champion_is_noted_without_another_promotion(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    ledger.append(artifacts.ledger, {"outcome": "PROMOTE", "key": "abc", "version": "3"})
    ledger.append(artifacts.ledger, {"outcome": "REJECT", "key": "def", "version": "4"})
    promote.confirm_champion(artifacts, "abc", CHAMPION)
    rows = ledger.read(artifacts.ledger)
    assert [row["outcome"] for row in rows] == ["PROMOTE", "REJECT", SAME]
    assert concluded_row(rows, "abc") == rows[-1], "the next run has nothing to do"
