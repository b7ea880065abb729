"""How a check of the gate is put into words: what it says, and what its value must be.

A check is the plain data of `rag.release.decision.Check`: the report, MLflow's tables and the card
of a release say the same of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Check = Mapping[str, Any]

#: Quantities that are no metric of the evaluation.
_QUANTITIES: Final = {
    "answer_length": "Answer length",
    "distinct_top1": "Different best passages",
    "latency_p50": "Median time of an answer",
    "latency_p95": "Time of an answer, 95th percentile",
    "memory": "Peak memory",
    "decisions": "Decisions on this test set",
    "human_win_rate": "Win rate among people",
}
#: Ratios to the champion, not points.
_RATIOS: Final = frozenset({"answer_length", "latency_p50", "latency_p95", "memory"})
#: First words of the names of checks whose bound is a ceiling, and of those whose bound is a floor.
_CEILINGS: Final = ("behaviour", "cost", "budget")
_FLOORS: Final = ("floor", "collapse", "human")


def quantity_name(metric: str) -> str | None:
    """`Peak memory`; None for a metric of the evaluation, which has its own name."""
    return _QUANTITIES.get(metric)


def is_change(check: Check) -> bool:
    """Whether the value is a difference in points, to be written with its sign."""
    first = str(check["name"]).split(" ", maxsplit=1)[0]
    is_level = first in (*_FLOORS, "budget")
    return not is_level and check["metric"] not in _RATIOS


def result(check: Check) -> str:
    """`passed`, `failed`, or `cannot tell` where the interval contains the bound."""
    said = "passed" if check["passed"] else "failed"
    if not check["passed"] and not check.get("conclusive", True):
        said = "cannot tell"
    return said if check.get("decides", True) else f"{said} (decides nothing)"


def bound(check: Check) -> str:
    """What the value, or an end of its interval, must be: `above -2.0`, `at most 1.5 times`."""
    first = str(check["name"]).split(" ", maxsplit=1)[0]
    limit = check["threshold"]
    if check["metric"] == "answer_length":
        return f"{1.0 / limit:.2f} to {limit:.2f} times"
    if check["metric"] == "decisions":
        return f"at most {limit:.0f}"
    words = "at most" if first in _CEILINGS else "at least" if first in _FLOORS else "above"
    return f"{words} {limit:.1f}{' times' if check['metric'] in _RATIOS else ''}"
