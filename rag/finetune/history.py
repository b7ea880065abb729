"""The curve of a training and its progress, written as it goes: a flow reads both meanwhile.

Of several workers the main one writes. How fast training was depends on the machine, so it is told
apart from the curve, which is a stage's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rag.finetune.checkpoint import Log, Tally
from rag.finetune.workers import world
from rag.progress import progress
from rag.records import sorted_json

Tick = Callable[[int, int], None]
_TOTAL = 100


@contextmanager
def training_log(path: Path, label: str) -> Iterator[tuple[Log, Tick]]:
    """Yields `log(metrics, step)`, one line of JSON in `path`, and `tick(step, steps)`."""
    if not world().is_main:
        yield lambda metrics, step: None, lambda step, steps: None
        return
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


def report_speed(label: str, trained: Tally, seconds: float, folder: Path) -> None:
    """Prints how fast training was and writes it to `folder/LABEL.json`; nothing where none was."""
    if not trained.samples:
        return
    facts = speed(trained, seconds)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{label}.json").write_text(sorted_json(facts) + "\n", encoding="utf-8")
    parts = [f"{facts['samples_per_second']:.1f} samples/s"]
    if trained.padded_tokens:
        parts.append(f"{facts['tokens_per_second']:.0f} tokens/s")
        parts.append(f"{100 * facts['padding_share']:.0f} % padding")
    print(f"{label}: {', '.join(parts)}", flush=True)


def speed(trained: Tally, seconds: float) -> dict[str, Any]:
    """What was trained in how many seconds; tokens without padding, where they were counted."""
    facts: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "samples": trained.samples,
        "samples_per_second": trained.samples / seconds,
    }
    if trained.padded_tokens:
        facts["tokens"] = trained.tokens
        facts["padded_tokens"] = trained.padded_tokens
        facts["tokens_per_second"] = trained.tokens / seconds
        facts["padding_share"] = trained.padding_share
    return facts
