"""Work in steps that have names: each is safe to repeat, and a crash after any of them is foreseen.

A test walks through the same steps as the work does, and dies after each of them in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One effect, done whole or to be done again."""

    name: str
    act: Callable[[], None]


def walk(steps: Iterable[Step]) -> None:
    """Takes every step, in order."""
    for step in steps:
        step.act()
