"""A soak as Markdown: what ran, what was done to it, and what became of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from benchmarks.soak_invariants import dead_spans, outcome
from benchmarks.soak_records import Fault, Records


def report(records: Records) -> str:
    """Two tables: the soak in figures, and its faults."""
    return "\n".join([*_figures(records), "", *_faults(records)])


def _figures(records: Records) -> Iterator[str]:
    ticks = [run for run in records.runs if run.is_tick]
    others = [run for run in records.runs if not run.is_tick]
    minutes = (records.samples[-1].seconds - records.samples[0].seconds) / 60
    yield "| | |"
    yield "|---|---|"
    yield f"| minutes | {minutes:.1f} |"
    yield f"| scheduled ticks | {len(ticks)}, one each {records.interval_seconds} s |"
    yield f"| other runs (taken up again, watch) | {len(others)} |"
    yield f"| retrained | {sum(run.is_retraining for run in records.runs)} |"
    for what, count in sorted(Counter(map(outcome, records.runs)).items()):
        yield f"| runs {what} | {count} |"
    yield f"| notices | {_counted(str(notice['event']) for notice in records.notices)} |"
    spans = dead_spans(records.samples)
    yield f"| longest running after death | {max(spans.values(), default=0.0):.0f} s |"
    seen = dict.fromkeys(version for one in records.samples for version in one.champions or ())
    yield f"| champions seen, one at a time | {', '.join(seen)} |"
    used = [sample.used for sample in records.samples if sample.sizes]
    yield (
        f"| disk, middle / end / peak | {used[len(used) // 2] / 1e6:.0f} / {used[-1] / 1e6:.0f} / "
        f"{max(used) / 1e6:.0f} MB |"
    )


def _faults(records: Records) -> Iterator[str]:
    yield "| fault | times | the run it hit ended as | longest until a run ended well again |"
    yield "|---|---|---|---|"
    ended = {run.run_id: outcome(run) for run in records.runs}
    for kind in dict.fromkeys(fault.kind for fault in records.faults):
        faults = [fault for fault in records.faults if fault.kind == kind]
        made = [fault for fault in faults if not fault.skipped]
        hit = _counted(ended.get(fault.run_id, "no run was at work") for fault in made)
        yield f"| {kind} | {len(made)}{_skipped(faults)} | {hit} | {_longest(made)} |"


def _longest(faults: list[Fault]) -> str:
    known = [fault.recovered for fault in faults if fault.recovered is not None]
    never = len(faults) - len(known)
    shown = [f"{max(known):.0f} s"] if known else []
    return ", ".join([*shown, f"{never} not seen before the next fault"] if never else shown)


def _skipped(faults: list[Fault]) -> str:
    reasons = [fault.skipped for fault in faults if fault.skipped]
    return f" ({len(reasons)} not made: {_counted(reasons)})" if reasons else ""


def _counted(names: Iterator[str] | list[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
