"""What must hold however the faults fell: each invariant is a pure function of the records.

An empty list says that it holds. `INVARIANTS` names them all, in the order of the requirement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from benchmarks.soak_records import DECIDED, Records, Run, Sample

#: No run may be taken for running for longer after its process has died.
DEAD_SECONDS = 120.0
#: Prefect is imported and the deployments are registered before the first tick is planned.
START_SECONDS = 60.0
#: A part of the disk may grow by this between the middle and the end: what is bounded has settled.
GROWTH = 0.5
GROWTH_BYTES = 4_000_000
_ENDED_BADLY = ("FAILED", "CRASHED", "CANCELLED")


def every_tick_ended(records: Records) -> list[str]:
    """Each run is done, or skipped with a reason, or has failed and somebody was told."""
    told = {run for notice in records.notices for run in notice.get("runs", ())}
    violations = []
    for run in records.runs:
        if run.state_type in _ENDED_BADLY:
            if run.run_id not in told:
                violations.append(f"{run.name} ended as {run.state_name}, and no notice says so")
        elif run.state_type != "COMPLETED":
            violations.append(f"{run.name} is {run.state_name} still")
        elif run.state_name == "Skipped" and not run.message:
            violations.append(f"{run.name} was skipped without a reason")
        elif run.is_tick and run.state_name not in (*DECIDED, "Skipped"):
            violations.append(f"{run.name} ended as {run.state_name}, which is no outcome")
    errors = sum(run.state_name == "Error" for run in records.runs)
    notices = sum(notice["event"] == "error" for notice in records.notices)
    if errors > notices:
        violations.append(f"{errors} runs ended as Error, and {notices} notices say so")
    return violations


def one_champion(records: Records) -> list[str]:
    """From the first promotion on one version is champion, and the ledger knows of it."""
    known = {str(row["champion"]) for row in records.ledger if row.get("champion")}
    violations = []
    has_begun = False
    for sample in records.samples:
        if sample.champions is None:
            continue
        has_begun = has_begun or bool(sample.champions)
        if has_begun and len(sample.champions) != 1:
            violations.append(f"{_at(records, sample)}: champions {list(sample.champions)}")
        violations += [
            f"{_at(records, sample)}: version {version} is champion and in no row of the ledger"
            for version in sample.champions
            if version not in known
        ]
    return _first_few(violations) if has_begun else ["there was never a champion"]


def no_run_outlives_its_process(records: Records) -> list[str]:
    """What a store takes for running has a process, or had one two minutes ago."""
    return [
        f"{run} was taken for running {seconds:.0f} s after its process had died"
        for run, seconds in sorted(dead_spans(records.samples).items())
        if seconds > DEAD_SECONDS
    ]


def dead_spans(samples: Sequence[Sample]) -> dict[str, float]:
    """Of each run the longest time, in seconds, that it was running without a process.

    A sample in which a store could not be read says nothing, and ends no span.
    """
    since: dict[str, float] = {}
    longest: dict[str, float] = {}
    for sample in samples:
        if sample.running is None:
            continue
        dead = sample.running - sample.alive
        since = {run: since.get(run, sample.seconds) for run in dead}
        for run, began in since.items():
            longest[run] = max(longest.get(run, 0.0), sample.seconds - began)
    return longest


def no_tick_lost(records: Records) -> list[str]:
    """While a schedule's program lived, there was a tick every interval: none was left out."""
    dues = sorted(run.due for run in records.runs if run.is_tick)
    violations = []
    for began, ended in schedule_spans(records.samples):
        settled = began + START_SECONDS
        inside = [due for due in dues if began <= due <= ended]
        ticks = [settled, *(due for due in inside if due > settled), ended]
        for before, after in pairwise(ticks):
            # One more interval at either end: the schedule begins and stops between two ticks.
            if after - before > 1.5 * records.interval_seconds:
                missing = round((after - before) / records.interval_seconds) - 1
                violations.append(
                    f"about {missing} ticks are missing {before - began:.0f} s after the schedule "
                    "was started"
                )
    return violations


def schedule_spans(samples: Sequence[Sample]) -> Iterator[tuple[float, float]]:
    """From when to when each schedule's program lived, in the project's clock."""
    for scheduler, group in groupby(samples, lambda sample: sample.scheduler):
        if scheduler is not None:
            clocks = [sample.clock for sample in group]
            yield clocks[0], clocks[-1]


def disk_is_bounded(records: Records) -> list[str]:
    """What retention has to bound stops growing: the end is near the middle, part by part."""
    measured = [sample for sample in records.samples if sample.sizes]
    if not measured:
        return ["the disk was never looked at"]
    middle, last = measured[len(measured) // 2].sizes, measured[-1].sizes
    return [
        f"{part} grew from {middle[part] / 1e6:.1f} MB in the middle to {size / 1e6:.1f} MB"
        for part, size in last.items()
        if size > (1 + GROWTH) * middle[part] + GROWTH_BYTES
    ]


def stores_are_whole(records: Records) -> list[str]:
    """Both databases pass SQLite's own check, and the ledger agrees with the registry."""
    return list(records.problems)


INVARIANTS: Mapping[str, Callable[[Records], list[str]]] = {
    "every tick ends": every_tick_ended,
    "one champion": one_champion,
    "no run outlives its process": no_run_outlives_its_process,
    "no tick is lost": no_tick_lost,
    "disk is bounded": disk_is_bounded,
    "stores are whole": stores_are_whole,
}


def enough(records: Records, *, ticks: int, retrainings: int) -> list[str]:
    """A soak that saw less than it was asked for proves less."""
    seen = [run for run in records.runs if run.is_tick]
    trained = sum(run.is_retraining for run in records.runs)
    found = []
    if len(seen) < ticks:
        found.append(f"{len(seen)} ticks of {ticks}")
    if trained < retrainings:
        found.append(f"{trained} retrainings of {retrainings}")
    return found


def outcome(run: Run) -> str:
    """How a run ended, in the words of the requirement; a reason to skip without its details."""
    if run.state_name == "Skipped":
        reasons = ("busy", "too late", "nothing changed", "the champion")
        kind = next((reason for reason in reasons if reason in run.message), "other")
        return f"skipped: {kind}"
    if run.state_type in _ENDED_BADLY:
        return run.state_name.lower()
    return f"done: {run.state_name.lower()}" if run.is_retraining else run.state_name


def _at(records: Records, sample: Sample) -> str:
    return f"{sample.seconds - records.samples[0].seconds:.0f} s after the start"


def _first_few(violations: list[str]) -> list[str]:
    more = len(violations) - 3
    return [*violations[:3], f"and {more} more like these"] if more > 0 else violations
