"""What the gate says: an outcome, and every check it rests on, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What the gate says; only PROMOTE changes what is live."""

    PROMOTE = "PROMOTE"
    REJECT = "REJECT"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


@dataclass(frozen=True)
class Check:
    """One threshold and what was measured against it, in points of percent unless `detail` says so.

    `name` is `primary`, `guard`, `floor`, ..., with the system compared against where there is one.
    A check that is not `conclusive` lacks the evidence to tell; one that does not `decide` is there
    to be read and cannot keep a challenger back. `n_questions` is 0 where questions play no part.
    """

    name: str
    metric: str
    value: float
    low: float
    high: float
    threshold: float
    passed: bool
    detail: str
    conclusive: bool = True
    decides: bool = True
    n_questions: int = 0


@dataclass(frozen=True)
class Decision:
    """The outcome with everything it rests on; `params` are the gate's params and the seed.

    `notes` are what a reader must know although it did not decide. `significance` has by metric the
    p-values of the difference from the champion, `attribution` what the new model and the new index
    gave, `detectable` the gain in points that this test set shows four times out of five.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    compared_with: str
    n_questions: int
    params: dict[str, Any]
    notes: tuple[str, ...] = ()
    test_set: str = ""
    metrics_version: str = ""
    significance: dict[str, dict[str, float]] = field(default_factory=dict)
    attribution: dict[str, Any] | None = None
    detectable: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that `from_json` reads back."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **record,
            "outcome": self.outcome.value,
            "reasons": list(self.reasons),
            "checks": [asdict(check) for check in self.checks],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Decision:
        """The decision that `to_json` wrote, also by a version that knew fewer fields."""
        return cls(
            **{
                **record,
                "outcome": Outcome(record["outcome"]),
                "reasons": tuple(record["reasons"]),
                "checks": tuple(Check(**check) for check in record["checks"]),
                "notes": tuple(record.get("notes", ())),
            }
        )
