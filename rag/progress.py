"""Progress of long work: a bar on a terminal, or a small file that whoever started the stage reads.

A flow runs stages in processes of their own, whose output is not a terminal; it names a file in
`RAGLOOP_PROGRESS_FILE` and draws one bar for all stages from it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "RAGLOOP_PROGRESS_FILE"
_INTERVAL_SECONDS = 0.5

Advance = Callable[[int], None]


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


class _FileProgress:
    def __init__(self, path: Path, label: str, total: int) -> None:
        self._path, self._label, self._total = path, label, total
        self._done, self._written = 0, 0.0
        self._write()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._written >= _INTERVAL_SECONDS or self._done >= self._total:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        state = {"label": self._label, "done": self._done, "total": self._total}
        temporary = self._path.with_name(self._path.name + ".tmp")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self._path)


def read_progress(path: Path) -> tuple[str, int, int] | None:
    """(label, done, total) as last written, None before the first time."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return state["label"], state["done"], state["total"]
