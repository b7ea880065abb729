"""Late runs: which of them still start, and what is said of the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flows import ticks
from rag.params import ScheduleParams

DUE = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
HOURLY = [DUE + timedelta(hours=hour) for hour in range(5)]


def why(minutes: float, *, is_newest: bool, **params: object) -> str | None:
    settings = ScheduleParams.model_validate({"timezone": "Europe/Berlin", **params})
    now = DUE + timedelta(minutes=minutes)
    missed = [tick for tick in HOURLY if tick <= now]
    return ticks.why_not(DUE, now, missed, settings, is_newest=is_newest)


def test_a_run_in_time_starts_whatever_the_policy() -> None:
    for policy in ("latest", "none"):
        assert why(60, is_newest=False, catch_up=policy) is None


def test_of_late_runs_the_newest_starts() -> None:
    assert why(61, is_newest=True) is None
    assert why(61, is_newest=False) is not None


def test_with_no_catching_up_none_starts() -> None:
    said = why(61, is_newest=True, catch_up="none")
    assert said is not None
    assert "schedule.catch_up is none" in said


def test_missed_ticks_are_counted_and_named_in_their_zone() -> None:
    assert why(150, is_newest=False) == (
        "too late: due at 2026-11-24 03:00 CET, 2 h 30 min ago (schedule.max_lateness_minutes is "
        "60), and a newer tick is due and runs instead; 3 ticks missed: 2026-11-24 03:00 CET, "
        "2026-11-24 04:00 CET, 2026-11-24 05:00 CET"
    )


def test_of_many_ticks_the_first_two_and_the_last_are_named() -> None:
    said = ticks.missed_ticks(HOURLY, ScheduleParams())
    assert said == (
        "5 ticks missed: 2026-11-24 02:00 UTC, 2026-11-24 03:00 UTC, ..., 2026-11-24 06:00 UTC"
    )
