"""Questions to the ledger: what was live at a time, and how often a test set has decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rag.errors import InputError
from rag.params import GateMode
from rag.release.decision import Outcome

#: Outcomes of the gate that looked at the test set; an ERROR saw nothing.
_LOOKED = frozenset({"PROMOTE", "REJECT", "INCONCLUSIVE"})
#: Outcomes of rows beside the gate's own: it waits for a person, moved nothing, was declined.
PENDING, DRY_RUN, DECLINED = "PENDING", "DRY_RUN", "DECLINED"
Row = Mapping[str, Any]


def decisions_on(rows: Sequence[Row], test_set: str) -> int:
    """How many decisions were made on this version of the test set, for whatever they led to."""
    decided = [row["decision"] for row in rows if isinstance(row.get("decision"), Mapping)]
    return sum(
        1
        for decision in decided
        if decision.get("test_set") == test_set and decision.get("outcome") in _LOOKED
    )


def ledger_outcome(outcome: Outcome, mode: GateMode) -> str:
    """What the ledger calls a decision, by who may act on it."""
    if outcome is Outcome.ERROR or mode == "auto":
        return outcome.value
    if mode == "dry_run":
        return DRY_RUN
    return PENDING if outcome is Outcome.PROMOTE else outcome.value


def live_at(rows: Sequence[Row], moment: datetime) -> Row | None:
    """The row that made the champion of that moment; None where there was none yet.

    A row counts if it says which version is champion after it and it differs from before.
    """
    made: Row | None = None
    for row in rows:
        if "champion" not in row or parse_time(str(row["time"])) > moment:
            continue
        before = made["champion"] if made else None
        if row["champion"] != before:
            made = row
    return made if made and made["champion"] is not None else None


def parse_time(text: str) -> datetime:
    """An ISO time; without a zone it is UTC. InputError for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{text!r} is no time; expected for example 2026-11-26T03:00 or 2026-11-26 (UTC)"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def latest_decision(rows: Sequence[Row], version: str) -> Row | None:
    """The newest row in which the gate decided about a version."""
    return next(
        (
            row
            for row in reversed(rows)
            if row.get("version") == version and isinstance(row.get("decision"), Mapping)
        ),
        None,
    )
