"""The doctor's own rules: isolation of checks, exit codes, what it makes of servers' answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import doctor
from flows.doctor_checks.data import read_config
from flows.doctor_checks.every import CHECKS
from flows.doctor_checks.finding import Check, Finding, Site, WaitsFor, fail, ok, warn, worst
from flows.doctor_checks.machine import judge_disk, judge_memory
from flows.doctor_checks.schedule import judge
from flows.prefect_facts import PrefectFacts, retrainings
from rag.errors import InputError
from rag.release.store_facts import schema_heads
from tests.flows.conftest import Done

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
GIGABYTE = 1_000_000_000
DOCS = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"


def at(minutes: float) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat()


def deployment(**facts: Any) -> dict[str, Any]:
    usual = {"name": "scheduled", "paused": False, "schedules": [{"active": True}]}
    return {**usual, "updated": at(-600), **facts}


def run(minutes: float, state: str) -> dict[str, Any]:
    return {"expected_start_time": at(minutes), "state_type": state.upper(), "state_name": state}


USUAL = PrefectFacts((deployment(),), (run(30, "Scheduled"),), (run(-30, "Completed"),), NOW)


def test_a_schedule_that_fired_and_is_planned_is_well() -> None:
    found = judge(USUAL, NOW)
    assert found.level == "ok"
    assert found.message == (
        "next run 2026-11-26 12:30:00 UTC, last tick 2026-11-26 11:30:00 UTC Completed"
    )


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (replace(USUAL, deployments=()), "fail", "is not there"),
        (replace(USUAL, deployments=(deployment(paused=True),)), "warn", "is paused"),
        (replace(USUAL, deployments=(deployment(schedules=[]),)), "warn", "is paused"),
        (replace(USUAL, coming=()), "fail", "no run is planned"),
        (replace(USUAL, coming=(run(-4, "Late"), run(9, "Scheduled"))), "fail", "has not started"),
        (replace(USUAL, past=(run(-30, "Failed"),)), "warn", "ended as Failed"),
        (replace(USUAL, past=(run(-30, "Crashed"),)), "warn", "ended as Crashed"),
    ],
)
def test_what_is_wrong_with_a_schedule(facts: PrefectFacts, level: str, words: str) -> None:
    found = judge(facts, NOW)
    assert (found.level, words in found.message) == (level, True), found


def test_a_late_run_may_wait_for_the_one_at_work_and_a_new_schedule_for_its_plan() -> None:
    at_work = (run(-10, "Running"), run(-40, "Completed"))
    waiting = replace(USUAL, coming=(run(-4, "Late"), run(9, "Scheduled")), past=at_work)
    assert judge(waiting, NOW).level == "ok"
    fresh = replace(USUAL, deployments=(deployment(updated=at(-1)),), coming=(), past=())
    assert judge(fresh, NOW).message == "the first run is being planned, no tick yet"


def test_what_is_started_by_hand_is_no_paused_schedule() -> None:
    """`ragloop up` serves flows without a schedule too, and a watch that looks all the time."""
    served = [
        deployment(description=f"{flow} of /x", schedules=rules)
        for flow, rules in (("rollback", []), ("retrain", [{"active": True}]), ("watch", [{}]))
    ]
    assert [item["description"] for item in retrainings(served)] == ["retrain of /x"]


@pytest.mark.parametrize(
    ("free", "inodes", "release", "level"),
    [
        (50 * GIGABYTE, 0.5, 0, "ok"),
        (4 * GIGABYTE, 0.5, 0, "warn"),
        (GIGABYTE - 1, 0.5, 0, "fail"),
        (50 * GIGABYTE, 0.5, 24 * GIGABYTE, "warn"),  # needs 49
        (50 * GIGABYTE, 0.5, 25 * GIGABYTE, "fail"),  # needs 51
        (50 * GIGABYTE, 0.001, 0, "fail"),
    ],
)
def test_a_disk_needs_room_for_two_more_releases(
    free: int, inodes: float, release: int, level: str
) -> None:
    assert judge_disk(free, 100 * GIGABYTE, inodes, release).level == level


def test_memory() -> None:
    levels = [judge_memory(free * 1_000_000).level for free in (4000, 999, 249)]
    assert levels == ["ok", "warn", "fail"]


def site() -> Site:
    return doctor.site_of(doctor.Artifacts(Path("nowhere")), {}, NOW)


def test_a_check_that_raises_is_a_failure_of_its_own_and_hides_no_other() -> None:
    def breaks(_: Site) -> Finding:
        raise ZeroDivisionError("by https://me:secret@host/x")

    found = doctor.look(Check("frail", "breaks", breaks), site())
    assert found.level == "fail"
    assert found.message == "the check itself failed: ZeroDivisionError: by https://host/x"
    assert found.name == "frail"


def test_what_waits_for_another_check_is_not_called_broken() -> None:
    def waits(_: Site) -> Finding:
        raise WaitsFor("params")

    found = doctor.look(Check("second", "waits", waits), site())
    assert (found.level, found.message) == ("skip", "cannot be looked at before `params` is mended")
    assert doctor.exit_code([found], strict=True) == 0


def test_the_worst_of_several_problems_gives_level_and_remedy() -> None:
    found = worst([warn("a", "do a"), fail("b", "do b"), warn("c", "do c"), warn("d", "-")], "well")
    assert (found.level, found.message, found.remedy) == ("fail", "b; a; c; and 1 more", "do b")
    assert worst([], "well") == ok("well")


def test_exit_codes_for_monitoring() -> None:
    well, small, broken = ok("x"), warn("x", "y"), fail("x", "y")
    assert [doctor.exit_code(item, strict=False) for item in ([well, small], [well, broken])] == [
        *(0, 1)
    ]
    assert [doctor.exit_code(item, strict=True) for item in ([well], [well, small])] == [0, 1]


def test_an_unknown_check_is_wrong_usage() -> None:
    with pytest.raises(InputError, match="no check shedule; there are versions, params"):
        doctor.examine(site(), ["shedule"])


def test_an_empty_folder_is_diagnosed_and_not_filled(
    tmp_path: Path, ragloop_here: Callable[..., Done]
) -> None:
    done = ragloop_here(tmp_path, "doctor", "--json")
    findings = {item["name"]: item for item in json.loads(done.out)}
    assert done.code == 1
    assert list(findings) == [check.name for check in CHECKS]
    assert findings["params"]["level"] == "fail"
    assert findings["versions"]["level"] == "ok", findings["versions"]
    assert not [item for item in findings.values() if "check itself failed" in item["message"]]
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_named_is_looked_at(tmp_path: Path, ragloop_here: Callable[..., Done]) -> None:
    done = ragloop_here(tmp_path, "doctor", "--only", "disk", "--only", "versions")
    assert [line.split()[1] for line in done.out.splitlines() if line[:1] in "✓!✗"] == [
        *("versions", "disk")
    ]
    assert done.code == 0


def test_the_head_of_migrations_is_the_one_that_nothing_follows(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('revision = "a1"\ndown_revision = None\n')
    (tmp_path / "b.py").write_text("revision = 'b2'\ndown_revision = 'a1'\n")
    (tmp_path / "c.py").write_text('revision = "c3"\ndown_revision = ("b2", "a1")\n')
    assert schema_heads(tmp_path) == {"c3"}


def test_the_settings_of_dvc_are_read_as_dvc_writes_them(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[core]\n    analytics = false\n    remote = s\n['remote \"s\"']\n    url = ../x\n"
    )
    assert read_config(tmp_path / "config") == {
        "core": {"analytics": "false", "remote": "s"},
        "remote.s": {"url": "../x"},
    }


def test_the_guide_has_every_check_in_its_order_with_what_it_is_about() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", DOCS.read_text(), re.MULTILINE)
    assert rows == [(check.name, check.about) for check in CHECKS]
