"""The soak's judges: each finds the one violation in records made by hand, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import soak_invariants as invariants
from benchmarks.soak_records import Records, Run, Sample

INTERVAL = 10


def tick(number: int, **changes: Any) -> Run:
    due = 1000.0 + INTERVAL * number
    run = Run(str(number), f"tick {number}", True, due, due + 5, "COMPLETED", "Skipped", "busy: x")
    return replace(run, **changes)


def sample(second: int, **changes: Any) -> Sample:
    look = Sample(float(second), 1000.0 + second, ["1"], frozenset(), scheduler=7)
    return replace(look, **changes)


def records(**changes: Any) -> Records:
    """A soak of 200 seconds in which everything went well; ticks begin after a minute."""
    good = Records(
        runs=[tick(number) for number in range(6, 21)],
        notices=[],
        ledger=[{"champion": 1}],
        samples=[sample(second) for second in range(0, 205, 5)],
        faults=[],
        interval_seconds=INTERVAL,
    )
    return replace(good, **changes)


def violated(found: Records) -> list[str]:
    return [name for name, judge in invariants.INVARIANTS.items() if judge(found)]


def with_sizes(*megabytes: float) -> Sequence[Sample]:
    whole = records().samples
    every = len(whole) // len(megabytes)
    sized = list(whole)
    for i, size in enumerate(megabytes):
        sized[i * every] = replace(whole[i * every], sizes={"index": round(size * 1e6)})
    return sized


def good() -> Records:
    return records(samples=with_sizes(10, 20, 20))


def test_nothing_is_found_where_all_went_well() -> None:
    assert violated(good()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"state_type": "CRASHED", "state_name": "Crashed"},
        {"state_type": "FAILED", "state_name": "Failed"},
        {"state_type": "RUNNING", "state_name": "Running"},
        {"state_type": "SCHEDULED", "state_name": "Late"},
        {"message": ""},
        {"state_name": "Completed"},
        {"state_name": "Error"},
    ],
)
def test_a_tick_without_an_end_or_a_word_is_found(changes: dict[str, Any]) -> None:
    runs = [*good().runs[:-1], tick(20, **changes)]
    assert violated(replace(good(), runs=runs)) == ["every tick ends"]


def test_a_failure_that_a_notice_names_is_none() -> None:
    crashed = tick(20, state_type="CRASHED", state_name="Crashed")
    runs = [*good().runs[:-1], crashed]
    told = [{"event": "crashed", "runs": ["20"]}]
    assert violated(replace(good(), runs=runs, notices=told)) == []
    other = [{"event": "crashed", "runs": ["19"]}]
    assert violated(replace(good(), runs=runs, notices=other)) == ["every tick ends"]


@pytest.mark.parametrize("champions", [[], ["1", "2"], ["9"]])
def test_no_two_and_no_unknown_champion(champions: list[str]) -> None:
    samples = list(good().samples)
    samples[30] = replace(samples[30], champions=champions)
    assert violated(replace(good(), samples=samples)) == ["one champion"]


def test_before_the_first_promotion_and_while_the_store_is_away_nothing_is_asked() -> None:
    samples = list(good().samples)
    samples[:5] = [replace(one, champions=[]) for one in samples[:5]]
    samples[20] = replace(samples[20], champions=None)
    assert violated(replace(good(), samples=samples)) == []
    never = [replace(one, champions=[]) for one in samples]
    assert violated(replace(good(), samples=never)) == ["one champion"]


def test_a_run_may_outlive_its_process_by_two_minutes() -> None:
    """Dead from second 20 on; a look in which the store was locked ends nothing."""

    def dead_until(second: int) -> Records:
        samples = [
            replace(one, running=frozenset({"r"})) if 20 <= one.seconds <= second else one
            for one in good().samples
        ]
        samples[10] = replace(samples[10], running=None)
        return replace(good(), samples=samples)

    assert violated(dead_until(140)) == []
    assert invariants.dead_spans(dead_until(140).samples) == {"r": 120.0}
    assert violated(dead_until(145)) == ["no run outlives its process"]


def test_a_run_with_a_process_may_run_for_as_long_as_it_likes() -> None:
    at_work = {"running": frozenset({"r"}), "alive": frozenset({"r"})}
    samples = [replace(one, **at_work) for one in good().samples]
    assert violated(replace(good(), samples=samples)) == []


@pytest.mark.parametrize("lost", [[6, 7], [12], [19, 20], list(range(6, 21))])
def test_a_tick_that_never_came_is_found(lost: list[int]) -> None:
    runs = [run for run in good().runs if int(run.run_id) not in lost]
    assert violated(replace(good(), runs=runs)) == ["no tick is lost"]


def test_without_a_schedule_there_is_no_tick_to_lose() -> None:
    """It was killed at 150 s, and another was there at 170 s, which has a minute to begin."""
    samples = [
        replace(one, scheduler=7 if one.seconds < 150 else None if one.seconds < 170 else 8)
        for one in good().samples
    ]
    runs = [run for run in good().runs if int(run.run_id) < 15]
    assert violated(replace(good(), samples=samples, runs=runs)) == []


def test_what_goes_on_growing_is_found() -> None:
    assert violated(replace(good(), samples=with_sizes(10, 20, 33))) == []
    assert violated(replace(good(), samples=with_sizes(10, 20, 35))) == ["disk is bounded"]


def test_stores_and_the_amount_of_work() -> None:
    assert violated(replace(good(), problems=["mlflow.db: torn"])) == ["stores are whole"]
    assert invariants.enough(good(), ticks=15, retrainings=0) == []
    assert invariants.enough(good(), ticks=16, retrainings=1) == [
        "15 ticks of 16",
        "0 retrainings of 1",
    ]


def test_a_run_that_is_starting_is_no_decision() -> None:
    """Prefect calls it Pending, which is also what a release that waits for people is called."""
    starting = tick(20, state_type="PENDING", state_name="Pending")
    waiting = tick(20, state_name="Pending")
    assert not starting.is_retraining
    assert waiting.is_retraining
    assert (invariants.outcome(starting), invariants.outcome(waiting)) == (
        "Pending",
        "done: pending",
    )
