"""Freed memory given back to the system: batches of many shapes leave a heap in pieces."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any


def give_back() -> None:
    """Returns what is free to the system; nothing where the C library has no call for it.

    Takes milliseconds. Without it the resident set of a training grew from 2.0 to 3.1 GiB in 444
    steps and a dev evaluation; after 18 steps, 0.9 of 2.0 GiB were free.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache(1)
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
