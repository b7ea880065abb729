"""A soak of scheduled operation: a toy project retrains on its schedule while faults fall on it.

    python benchmarks/soak.py --ticks 100 --retrainings 30     # make soak; about half an hour
    python benchmarks/soak.py --seed 7 --keep                  # other faults; the folder stays

A real `ragloop up` runs in a folder of its own. Faults, in a random order that the seed decides,
are done to the live system; data and params change, so that there is something to train. Afterwards
the stores themselves are asked whether every invariant of `soak_invariants.py` held. Prints a
report in Markdown; exit code 1 names each violation.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.soak_faults import inject, planned  # noqa: E402 - the folder above comes first
from benchmarks.soak_invariants import INVARIANTS, enough  # noqa: E402
from benchmarks.soak_records import (  # noqa: E402
    Fault,
    Records,
    Run,
    read_notices,
    read_runs,
    store_problems,
)
from benchmarks.soak_report import report  # noqa: E402
from benchmarks.soak_sampler import Sampler  # noqa: E402
from benchmarks.soak_system import BETTER, System, make_system, wait_until_served  # noqa: E402
from rag.release import ledger  # noqa: E402

#: For a run to end well after a fault, and for a decision between two faults.
RECOVERY_SECONDS = 120.0
#: Every so many changes are another document, or a rollback, instead of a parameter.
_DOCUMENT_EVERY, _ROLLBACK_EVERY = 7, 9


class Soak:
    """One soak of a system: `run` makes the records."""

    def __init__(
        self,
        system: System,
        *,
        seed: int,
        say: Callable[[str], None],
        recovery_seconds: float = RECOVERY_SECONDS,
    ) -> None:
        self._system = system
        self._chance = random.Random(seed)
        self._say = say
        self._recovery_seconds = recovery_seconds
        self._sampler = Sampler(system)
        self._faults: list[Fault] = []
        self._changes = 0
        self._decided = self._decided_before = 0
        self._next_change = 0.0

    def run(
        self,
        kinds: Iterator[str],
        *,
        ticks: int,
        retrainings: int,
        minutes: float,
        interval: int,
        faults: int = 0,
    ) -> Records:
        """Faults until there were enough of all three, a quiet end, and the records."""
        system = self._system
        system.start()
        self._sampler.start()
        try:
            wait_until_served(system)
            deadline = time.monotonic() + 60 * minutes
            for kind in kinds:
                is_enough = len(self._faults) >= faults and self._is_enough(ticks, retrainings)
                if is_enough or time.monotonic() > deadline:
                    break
                self._fall(kind, deadline)
            while not self._is_enough(ticks, retrainings) and time.monotonic() < deadline:
                self._work()
            problems = self._come_to_rest(interval)
        finally:
            self._sampler.stop()
        now = system.clock.now()
        return Records(
            runs=read_runs(system, until=now),
            notices=read_notices(system),
            ledger=ledger.read(system.artifacts.ledger),
            samples=self._sampler.samples,
            faults=self._faults,
            interval_seconds=interval,
            problems=[*problems, *store_problems(system)],
        )

    def _fall(self, kind: str, deadline: float) -> None:
        """One fault, and then work until a run has ended well that began after it."""
        self._await_decision(deadline)
        pause = time.monotonic() + self._chance.uniform(0.0, 20.0)
        while time.monotonic() < pause:
            self._work()
        self._decided_before = self._decided
        fault = inject(self._system, kind, self._chance)
        self._faults.append(fault)
        self._say(f"{kind}: {fault.skipped or fault.target}")
        if fault.skipped:
            return
        over = self._system.clock.now()
        limit = min(deadline, fault.ended + self._recovery_seconds)
        while time.monotonic() < limit:
            self._work()
            if any(run.ended and min(run.ended, run.due) > over for run in self._good_runs()):
                fault.recovered = time.monotonic() - fault.ended
                self._say(f"  a run ended well {fault.recovered:.0f} s later")
                return
        self._say(f"  no run has ended well within {self._recovery_seconds:.0f} s")

    def _await_decision(self, deadline: float) -> None:
        """Faults that follow each other faster would let no retraining come to its end."""
        limit = min(deadline, time.monotonic() + self._recovery_seconds)
        while self._faults and self._decided == self._decided_before and time.monotonic() < limit:
            self._work()

    def _work(self) -> None:
        """A second of ordinary life: a service manager looks, and somebody changes something."""
        system = self._system
        system.keep_up()
        decided = len(ledger_rows(system))
        if decided > self._decided:
            self._decided = decided
            self._next_change = time.monotonic() + self._chance.choice((0.0, 0.0, 0.0, 25.0))
        if decided and self._next_change and time.monotonic() > self._next_change:
            self._next_change = 0.0
            self._change()
        time.sleep(1.0)

    def _change(self) -> None:
        self._changes += 1
        if not self._changes % _ROLLBACK_EVERY:
            done = self._system.ragloop("rollback")
            self._say(f"  rollback: {(done.stdout or done.stderr).splitlines()[0]}")
        if not self._changes % _DOCUMENT_EVERY:
            self._system.add_document(self._changes)
        else:
            rate = 0.02 + 0.0001 * self._changes
            self._system.change(f"reader.training.learning_rate={rate:.4f}", BETTER)

    def _good_runs(self) -> list[Run]:
        return [run for run in self._runs() if run.is_tick and run.state_type == "COMPLETED"]

    def _runs(self) -> list[Run]:
        try:
            return read_runs(self._system, until=self._system.clock.now())
        except sqlite3.Error:
            return []

    def _is_enough(self, ticks: int, retrainings: int) -> bool:
        runs = self._runs()
        trained = sum(run.is_retraining for run in runs)
        ended = sum(run.is_tick and run.ended is not None for run in runs)
        return ended >= ticks and trained >= retrainings

    def _come_to_rest(self, interval: int) -> list[str]:
        """Stops everything at a moment when no run is at work; says what is wrong then."""
        system = self._system
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            system.keep_up()
            due = [run for run in self._runs() if run.ended is None]
            age = max((run.due for run in self._good_runs()), default=0.0)
            if not due and system.clock.now() - age < 0.6 * interval:
                break
            time.sleep(0.5)
        family = system.family()
        code = system.stop()
        problems = [] if code == 0 else [f"ragloop up ended with exit code {code}"]
        left = [process for process in family if process.is_running()]
        problems += [f"process {process.pid} was left behind" for process in left]
        asked = system.ragloop("ask", "Who commands the Galebird?")
        if asked.returncode != 0:
            problems.append(f"the champion does not answer: {asked.stderr.strip()[-200:]}")
        return problems


def ledger_rows(system: System) -> Sequence[object]:
    """Rows of the ledger, as far as they can be read now."""
    try:
        return system.artifacts.ledger.read_bytes().splitlines()
    except OSError:
        return ()


def violations(records: Records) -> list[str]:
    """Each invariant that does not hold, with what speaks against it."""
    found = {name: judge(records) for name, judge in INVARIANTS.items()}
    return [f"{name}: {line}" for name, lines in found.items() for line in lines]


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ticks", type=int, default=100)
    parser.add_argument("--retrainings", type=int, default=30)
    parser.add_argument("--interval", type=int, default=15, help="seconds between ticks")
    parser.add_argument("--seed", type=int, default=1, help="decides which faults fall and when")
    parser.add_argument("--minutes", type=float, default=60, help="ends then in any case")
    parser.add_argument("--faults", help="these kinds first, separated by commas")
    parser.add_argument("--keep", action="store_true", help="leave the folder, and say where it is")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ragloop-soak-"))
    system = make_system(folder, interval_seconds=chosen.interval)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {text}", file=sys.stderr, flush=True)

    first = chosen.faults.split(",") if chosen.faults else []
    try:
        records = Soak(system, seed=chosen.seed, say=say).run(
            chain(first, planned(chosen.seed)),
            ticks=chosen.ticks,
            retrainings=chosen.retrainings,
            minutes=chosen.minutes,
            interval=chosen.interval,
        )
        print(report(records))
        print()
        for why in system.restarts:
            say(f"ragloop up was started again: {why}")
        found = violations(records)
        found += enough(records, ticks=chosen.ticks, retrainings=chosen.retrainings)
        for line in found:
            print(f"VIOLATED {line}")
        print("" if found else "Every invariant held.")
        return 1 if found else 0
    finally:
        if chosen.keep:
            system.stop()
            say(f"kept: {folder}")
        else:
            system.remove()


if __name__ == "__main__":
    sys.exit(main())
