"""The curve of a training and its progress, written as it goes: a flow reads both meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rag.finetune.checkpoint import Log
from rag.progress import progress
from rag.records import sorted_json

Tick = Callable[[int, int], None]
_TOTAL = 100


@contextmanager
def training_log(path: Path, label: str) -> Iterator[tuple[Log, Tick]]:
    """Yields `log(metrics, step)`, one line of JSON in `path`, and `tick(step, steps)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as history, progress(label, _TOTAL) as advance:
        done = 0

        def log(metrics: Mapping[str, float], step: int) -> None:
            row = {"step": step} | {name: round(value, 6) for name, value in metrics.items()}
            history.write(sorted_json(row) + "\n")
            history.flush()

        def tick(step: int, steps: int) -> None:
            nonlocal done
            share = _TOTAL * step // steps
            advance(share - done)
            done = share

        yield log, tick
