"""Progress of long work: a bar on a terminal, or a small file that whoever started the stage reads.

A flow runs stages in processes of their own, whose output is not a terminal; it names a file in
`RAGLOOP_PROGRESS_FILE` and draws one bar for all stages from it. Both say how long the rest takes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

VARIABLE = "RAGLOOP_PROGRESS_FILE"
_INTERVAL_SECONDS = 0.5

Advance = Callable[[int], None]


class ProgressState(NamedTuple):
    """What is being done, how much of it is done, and the seconds that the rest should take."""

    label: str
    done: int
    total: int
    seconds_left: float | None = None
    """None while it cannot be told."""


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Yields `advance(n)`, to be called as n more of `total` are done."""
    file = os.environ.get(VARIABLE)
    if file:
        yield _FileProgress(Path(file), label, total).advance
        return
    from tqdm import tqdm

    # disable=None: no bar where the output is not a terminal.
    with tqdm(total=total, desc=label, disable=None, leave=False) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


def seconds_left(
    done: int, total: int, seconds: float, *, first_done: int, first_seconds: float
) -> float | None:
    """What the rest takes at the rate since the first step was done; None at that step.

    What came before the first step, such as the loading of a model, happens once: it is no part of
    the rate.
    """
    if done >= total:
        return 0.0
    if done <= first_done:
        return None
    return (seconds - first_seconds) / (done - first_done) * (total - done)


class _FileProgress:
    def __init__(self, path: Path, label: str, total: int) -> None:
        self._path, self._label, self._total = path, label, total
        self._done, self._written = 0, 0.0
        self._first: tuple[int, float] | None = None
        self._write()

    def advance(self, count: int) -> None:
        self._done += count
        if self._first is None:
            self._first = self._done, time.monotonic()
        if time.monotonic() - self._written >= _INTERVAL_SECONDS or self._done >= self._total:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        first_done, first_seconds = self._first or (self._done, self._written)
        left = seconds_left(
            self._done,
            self._total,
            self._written,
            first_done=first_done,
            first_seconds=first_seconds,
        )
        state = ProgressState(self._label, self._done, self._total, left)
        temporary = self._path.with_name(self._path.name + ".tmp")
        temporary.write_text(json.dumps(state._asdict()), encoding="utf-8")
        temporary.replace(self._path)


def read_progress(path: Path) -> ProgressState | None:
    """The state as last written, None before the first time."""
    try:
        return ProgressState(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
