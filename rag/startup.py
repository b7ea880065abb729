"""What a process of ours does first, so that it starts and ends sooner.

The libraries of a run make about a million objects while they are imported. They all stay, yet
Python's cyclic garbage collector looks through them again and again meanwhile, and once more when
the process ends: together a third of the CPU time of a short process (benchmarks/overhead.py).
"""

from __future__ import annotations

import atexit
import gc

#: New objects, less those freed, after which the youngest are looked through; Python's own is 700.
_YOUNGEST = 50_000


def spare_collector() -> None:
    """Collects garbage less often in this process, and not at its end, when all memory goes back.

    Only objects in reference cycles wait longer for it; a library's own `gc.collect()` works as
    always.
    """
    if gc.get_threshold()[0] < _YOUNGEST:
        gc.set_threshold(_YOUNGEST)
        atexit.register(gc.freeze)
