"""From windows to alarms: k of the last n and the latest, once an episode, until it is calm again.

One window in a hundred is beyond a 99 % threshold by chance, so one is no reason to train. With
three of five, windows that are independent raise an alarm by chance about once in 170,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Rule:
    """An alarm begins with `hits` of the last `windows`, and ends after `windows` without any."""

    hits: int
    windows: int


@dataclass(frozen=True)
class Episode:
    """What the last windows said, oldest first; whether an alarm is on and has been answered.

    An answer is a retraining that was started for it; the same alarm asks for no other.
    """

    recent: tuple[bool, ...] = ()
    is_on: bool = False
    is_answered: bool = False

    @property
    def calls(self) -> bool:
        """Whether it asks for a retraining."""
        return self.is_on and not self.is_answered

    def after(self, windows: Iterable[bool], rule: Rule) -> Episode:
        """The episode after more windows, each true where it was beyond its threshold."""
        found = self
        for hit in windows:
            recent = (*found.recent, hit)[-rule.windows :]
            if hit and sum(recent) >= rule.hits:
                found = replace(found, recent=recent, is_on=True)
            elif not any(recent) and len(recent) == rule.windows:
                found = Episode(recent)
            else:
                found = replace(found, recent=recent)
        return found

    def answered(self) -> Episode:
        """The same alarm, after a retraining was started for it."""
        return replace(self, is_answered=self.is_on)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that `from_json` reads back."""
        return {**asdict(self), "recent": list(self.recent)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Episode:
        """The episode that `to_json` wrote."""
        return cls(**{**record, "recent": tuple(record["recent"])})
