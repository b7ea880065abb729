"""What was live when, and how often a test set has decided."""

from __future__ import annotations

from typing import Any

import pytest

from rag.errors import InputError
from rag.release.decision import Outcome
from rag.release.history import (
    decisions_on,
    latest_decision,
    ledger_outcome,
    live_at,
    parse_time,
)


def row(time: str, outcome: str, champion: str | None, **more: Any) -> dict[str, Any]:
    return {"time": f"2026-11-{time}:00+00:00", "outcome": outcome, "champion": champion, **more}


ROWS = [
    row("01T03:00", "ERROR", None),
    row("02T03:00", "PROMOTE", "1"),
    row("03T03:00", "REJECT", "1"),
    row("04T03:00", "PROMOTE", "3"),
    row("05T03:00", "SAME", "3"),
    row("06T03:00", "ROLLBACK", "1"),
    {"time": "2026-11-06T04:00:00+00:00", "outcome": "NOTED"},
]


@pytest.mark.parametrize(
    ("moment", "version", "since"),
    [
        ("2026-11-01T12:00", None, None),
        ("2026-11-02T02:59:59", None, None),
        ("2026-11-02T03:00:00+00:00", "1", "02"),
        ("2026-11-02T03:30:00+01:00", None, None),
        ("2026-11-04", "1", "02"),
        ("2026-11-05T12:00", "3", "04"),
        ("2026-12-01", "1", "06"),
    ],
)
def test_what_was_live(moment: str, version: str | None, since: str | None) -> None:
    found = live_at(ROWS, parse_time(moment))
    assert (found["champion"] if found else None) == version
    assert (found["time"][8:10] if found else None) == since


def test_a_time_must_be_one() -> None:
    with pytest.raises(InputError, match="'yesterday' is no time"):
        parse_time("yesterday")


def test_only_decisions_that_looked_at_the_test_set_count() -> None:
    def decided(outcome: str, test_set: str) -> dict[str, Any]:
        return {"outcome": outcome, "decision": {"outcome": outcome, "test_set": test_set}}

    rows = [
        decided("PROMOTE", "a"),
        decided("REJECT", "a"),
        decided("INCONCLUSIVE", "b"),
        decided("ERROR", "a"),
        {"outcome": "ROLLBACK"},
        {"outcome": "DRY_RUN", "decision": {"outcome": "PROMOTE", "test_set": "a"}},
        {"outcome": "PROMOTE", "decision": {"outcome": "PROMOTE"}},
    ]
    assert (decisions_on(rows, "a"), decisions_on(rows, "b"), decisions_on(rows, "c")) == (3, 1, 0)


def test_the_newest_decision_about_a_version() -> None:
    rows = [
        {"version": "2", "decision": {"outcome": "REJECT"}, "sequence": 1},
        {"version": "2", "decision": {"outcome": "PROMOTE"}, "sequence": 2},
        {"version": "2", "outcome": "DECLINED", "sequence": 3},
    ]
    assert latest_decision(rows, "2") == rows[1]
    assert latest_decision(rows, "9") is None


def test_who_may_act_on_a_decision() -> None:
    table = {
        "auto": ("PROMOTE", "REJECT", "ERROR"),
        "manual": ("PENDING", "REJECT", "ERROR"),
        "dry_run": ("DRY_RUN", "DRY_RUN", "ERROR"),
    }
    for mode, expected in table.items():
        outcomes = (Outcome.PROMOTE, Outcome.REJECT, Outcome.ERROR)
        found = tuple(ledger_outcome(outcome, mode) for outcome in outcomes)  # type: ignore[arg-type]
        assert found == expected
