"""rag/startup.py: the garbage collector looks less often, and not at all when the process ends."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc

class Knot:
    def __init__(self):
        self.me = self
    def __del__(self):
        print("collected")

gc.collect()
{first}
Knot()
print(gc.get_threshold()[0])
{last}
"""


def run(*, first: str, last: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first, last=last)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


SPARED = "from rag.startup import spare_collector; spare_collector(); spare_collector()"


def test_cycles_are_left_alone_at_the_end_of_a_process() -> None:
    assert run(first="")[1:] == ["collected"], "Python looks for cycles when it ends"
    assert run(first=SPARED) == ["50000"]


def test_garbage_is_still_collected() -> None:
    allocate = "kept = [[] for _ in range(60_000)]"
    assert run(first=SPARED, last=allocate) == ["50000", "collected"]


def test_a_threshold_that_is_higher_already_stays() -> None:
    assert run(first="gc.set_threshold(70_000)\n" + SPARED)[0] == "70000"
