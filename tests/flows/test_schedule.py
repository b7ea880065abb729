"""Schedules: ticks across the switch of clocks, what is served, and what params refuse."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from flows import schedule, ticks
from rag.errors import InputError, ParamsError
from rag.params import Params, ScheduleParams, parse_params

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(text: str, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def ticks_of(day: str, cron: str) -> list[str]:
    """The ticks of a day in Berlin, in UTC."""
    params = ScheduleParams(cron=cron, timezone="Europe/Berlin")
    found = ticks.ticks_between(berlin(f"{day}T00:00"), berlin(f"{day}T23:59"), params, cron)
    return [f"{tick:%H:%M}" for tick in found]


def test_three_in_the_morning_stays_three_when_clocks_go_forward() -> None:
    # 2026-03-29: 02:00 CET (+1) becomes 03:00 CEST (+2).
    assert ticks_of("2026-03-28", "0 3 * * *") == ["02:00"]
    assert ticks_of("2026-03-29", "0 3 * * *") == ["01:00"]
    assert ticks_of("2026-03-30", "0 3 * * *") == ["01:00"]


def test_an_hour_that_the_clocks_leave_out_still_runs_once() -> None:
    # 02:30 does not exist on 2026-03-29: the tick is at 03:00 CEST, the end of the gap.
    assert len(ticks_of("2026-03-29", "30 2 * * *")) == 1


def test_three_in_the_morning_stays_three_when_clocks_go_back() -> None:
    # 2026-10-25: 03:00 CEST (+2) becomes 02:00 CET (+1).
    assert ticks_of("2026-10-24", "0 3 * * *") == ["01:00"]
    assert ticks_of("2026-10-25", "0 3 * * *") == ["02:00"]
    assert ticks_of("2026-10-26", "0 3 * * *") == ["02:00"]


def test_an_hour_that_comes_twice_runs_once() -> None:
    # 02:30 comes at 00:30 and at 01:30 UTC.
    assert len(ticks_of("2026-10-25", "30 2 * * *")) == 1


def test_what_is_served_and_when() -> None:
    params = parse_params(
        {"schedule": {"cron": "0 4 * * 1", "timezone": "Europe/Berlin", "prune_cron": "0 6 * * *"}}
    )
    served = {each.flow: each.cron for each in schedule.deployments(params)}
    expected = {"retrain": "0 4 * * 1", "refresh": None, "rollback": None, "prune": "0 6 * * *"}
    assert served.items() >= expected.items()


def test_what_is_served_has_a_flow_of_its_name() -> None:
    served = schedule.deployments(Params())
    assert [each.function.name for each in served] == [each.flow for each in served]


def test_a_search_is_served_where_its_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    (tune,) = [each for each in schedule.deployments(Params()) if each.flow == "tune"]
    assert schedule.schedule_of(tune, ScheduleParams()) is None, "only when somebody starts it"
    assert set(tune.function.parameters.properties) == {"trials", "timeout_minutes"}
    monkeypatch.setitem(sys.modules, "optuna", None)  # as if it were not there
    assert "tune" not in {each.flow for each in schedule.deployments(Params())}


def test_the_schedule_is_a_cron_line_in_its_zone_or_an_interval() -> None:
    retrain, refresh, *_ = schedule.deployments(Params())
    when = ScheduleParams(timezone="Europe/Berlin")
    made = schedule.schedule_of(retrain, when)
    assert (made.cron, made.timezone) == ("0 3 * * *", "Europe/Berlin")
    often = schedule.schedule_of(retrain, ScheduleParams(interval_seconds=90))
    assert often.interval.total_seconds() == 90
    assert schedule.schedule_of(refresh, when) is None


def test_a_cron_line_of_the_right_form_that_means_nothing_is_refused() -> None:
    served = schedule.Served("retrain", "flows.retrain", "0 25 * * *")
    with pytest.raises(InputError, match=r"cron of retrain: Prefect cannot read '0 25 \* \* \*'"):
        schedule.schedule_of(served, ScheduleParams())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cron", "every day", "schedule.cron"),
        ("refresh_cron", "0 3 * *", "schedule.refresh_cron"),
        ("timezone", "Europe/Atlantis", "schedule.timezone"),
        ("catch_up", "all", "schedule.catch_up"),
        ("stage_timeout_minutes", {"train": 5}, "schedule.stage_timeout_minutes"),
        ("max_lateness_minutes", 0, "schedule.max_lateness_minutes"),
    ],
)
def test_params_refuse_nonsense(key: str, value: object, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        parse_params({"schedule": {key: value}})


def test_each_stage_has_its_time() -> None:
    own = ScheduleParams(stage_timeout_minutes={"default": 10, "train_reader": 600})
    assert own.stage_timeout_seconds("train_reader") == 36_000
    assert own.stage_timeout_seconds("embed") == 600
    assert ScheduleParams(stage_timeout_minutes={}).stage_timeout_seconds("embed") is None
