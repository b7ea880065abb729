"""What the main job costs and gives: time, memory and metrics of `ragloop run` in a fresh clone.

    python benchmarks/main_job.py                       # the demo corpus, then a second run
    python benchmarks/main_job.py --data squad.json.xz \
        --set prepare.max_train_questions=1000 --set prepare.max_test_questions=300

The clone is made from this repository's HEAD in a temporary folder and uses the Python that runs
this script. Memory is the sum of the resident sets of all processes of the run, sampled twice a
second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Cost:
    """Wall time, and the most memory that the process tree held at one time."""

    seconds: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description="Time, memory and metrics of the main job.")
    parser.add_argument("--data", type=Path, help="documents and questions; default: the demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragloop-benchmark-") as folder:
        project = Path(folder) / "project"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
        if arguments.data:
            ragloop(project, "data", "import", str(arguments.data.resolve()), "--replace")
        changes = [part for change in arguments.set for part in ("--set", change)]
        first = ragloop(project, "run", *changes)
        show("first run", first)
        show("second run", ragloop(project, "run"))
        path = project / "data" / "evaluate" / "metrics.json"
        show_metrics(json.loads(path.read_text(encoding="utf-8")))


def ragloop(project: Path, *arguments: str) -> Cost:
    """Runs a command to its end while its process tree is watched; stops where it fails."""
    started = time.monotonic()
    process = psutil.Popen([sys.executable, "-m", "flows.cli", *arguments], cwd=project)
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_bytes(process))
        time.sleep(_SAMPLE_SECONDS)
    if process.returncode != 0:
        raise SystemExit(f"ragloop {' '.join(arguments)} ended with {process.returncode}")
    return Cost(time.monotonic() - started, peak)


def tree_bytes(process: psutil.Process) -> int:
    """Resident bytes of a process and all its descendants; one that has just ended counts 0."""
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return total
    return total


def show(name: str, cost: Cost) -> None:
    print(f"{name}: {cost.seconds:.0f} s, peak {cost.peak_bytes / 2**30:.2f} GiB", flush=True)


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """A Markdown table, a row a metric and a column a system."""
    systems: Sequence[str] = list(metrics["systems"])
    print(f"\n{metrics['n_questions']} test questions\n")
    print(f"| percent | {' | '.join(systems)} |")
    print("|---|" + "---|" * len(systems))
    for name in metrics["systems"][systems[0]]:
        cells = [cell(metrics["systems"][system].get(name)) for system in systems]
        print(f"| {name} | {' | '.join(cells)} |")


def cell(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return "-"
    return f"{interval['value']:.1f} ({interval['low']:.1f}, {interval['high']:.1f})"


if __name__ == "__main__":
    main()
