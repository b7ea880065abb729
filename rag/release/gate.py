"""The gate: may this challenger become champion? A pure function of prediction tables and params.

Challenger and champion answered the same frozen questions, so they are compared question by
question: paired bootstrap, whole documents resampled, seeded. The lower end of an interval must
clear its threshold, so equal systems and lucky small samples are not promoted. Whatever cannot be
compared (a missing metric, NaN, other questions, any exception) is ERROR, and the champion stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from rag.errors import RagError, ReleaseError
from rag.evaluation.statistics import Interval
from rag.params import GateParams
from rag.release.comparison import check_predictions, check_same_questions, differences, levels


class Outcome(StrEnum):
    """What the gate says; only PROMOTE changes what is live."""

    PROMOTE = "PROMOTE"
    REJECT = "REJECT"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


@dataclass(frozen=True)
class Check:
    """One threshold and what was measured against it, in points of percent.

    `name` is `primary`, `guard` or `floor`, with the system compared against where there is one.
    """

    name: str
    metric: str
    value: float
    low: float
    high: float
    threshold: float
    passed: bool
    detail: str


@dataclass(frozen=True)
class Decision:
    """The outcome with everything it rests on; `params` are the gate's params and the seed."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    compared_with: str
    n_questions: int
    params: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that `from_json` reads back."""
        checks = [asdict(check) for check in self.checks]
        return {
            "outcome": self.outcome.value,
            "reasons": list(self.reasons),
            "checks": checks,
            "compared_with": self.compared_with,
            "n_questions": self.n_questions,
            "params": self.params,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Decision:
        """The decision that `to_json` wrote."""
        return cls(
            outcome=Outcome(record["outcome"]),
            reasons=tuple(record["reasons"]),
            checks=tuple(Check(**check) for check in record["checks"]),
            compared_with=str(record["compared_with"]),
            n_questions=int(record["n_questions"]),
            params=dict(record["params"]),
        )


def decide(
    challenger: pa.Table,
    champion: pa.Table | None,
    baselines: Mapping[str, pa.Table],
    params: GateParams,
    *,
    seed: int,
) -> Decision:
    """Compares a challenger with the champion, or with every baseline while there is no champion.

    Tables have the columns of `records.PREDICTIONS` and the rows of one system each. Never raises:
    what goes wrong is an ERROR with its reason.

    - PROMOTE: every check passed. Floors hold always; with a champion the primary metric gains
      more than `min_effect` and each guard loses less than its margin, at the lower ends; without
      one, the primary metric beats every baseline by more than `baseline_effect`.
    - REJECT: a floor or a guard failed, or even the upper end of the primary gain is too small.
    - INCONCLUSIVE: the interval of the primary gain contains the threshold.
    """
    opponents = {"champion": champion} if champion is not None else dict(baselines)
    compared_with = ", ".join(opponents)
    settings = {**params.model_dump(mode="json"), "seed": seed}
    questions = challenger.num_rows if isinstance(challenger, pa.Table) else 0
    try:
        checks = _checks(challenger, opponents, params, seed, has_champion=champion is not None)
        outcome, reasons = _outcome(checks)
    except Exception as error:  # noqa: BLE001 - the contract: whatever goes wrong, the champion stays
        reason = str(error) if isinstance(error, RagError) else f"{type(error).__name__}: {error}"
        return Decision(Outcome.ERROR, (reason,), (), compared_with, questions, settings)
    return Decision(outcome, reasons, tuple(checks), compared_with, questions, settings)


def _checks(
    challenger: pa.Table,
    opponents: Mapping[str, pa.Table],
    params: GateParams,
    seed: int,
    *,
    has_champion: bool,
) -> list[Check]:
    check_predictions("challenger", challenger)
    for name, table in opponents.items():
        check_predictions(name, table)
        check_same_questions("challenger", challenger, name, table)
    drawn: dict[str, Any] = {
        "resamples": params.resamples,
        "confidence": params.confidence,
        "seed": seed,
    }
    gains = {name: differences(challenger, table, **drawn) for name, table in opponents.items()}
    threshold = params.min_effect if has_champion else params.baseline_effect
    metric = params.metric
    checks = [
        _gain("primary", name, metric, gain[metric], threshold)
        for name, gain in gains.items()
        if metric in gain
    ]
    if not checks:
        raise ReleaseError(
            f"nothing to compare {metric} with: {', '.join(gains) or 'no champion, no baseline'}"
            + (" does not have it" if gains else "")
        )
    if has_champion:
        for guard, margin in params.guards.items():
            gain = _metric(gains["champion"], guard, "the comparison with the champion")
            checks.append(_gain("guard", "champion", guard, gain, -margin))
    own = levels(challenger, **drawn) if params.floors else {}
    for name, floor in params.floors.items():
        checks.append(_floor(name, _metric(own, name, "the challenger"), floor))
    return checks


def _metric(found: Mapping[str, Interval], metric: str, owner: str) -> Interval:
    if metric not in found:
        raise ReleaseError(f"{owner} has no {metric}; it has {', '.join(sorted(found))}")
    return found[metric]


def _gain(kind: str, other: str, metric: str, gain: Interval, threshold: float) -> Check:
    passed = gain.low > threshold
    detail = (
        f"{metric} {gain.value:+.1f} points against {other} (interval {gain.low:+.1f} to "
        f"{gain.high:+.1f}); the lower end {'is' if passed else 'is not'} above {threshold:+.1f}"
    )
    return Check(
        name=f"{kind} against {other}",
        metric=metric,
        **asdict(gain),
        threshold=threshold,
        passed=passed,
        detail=detail,
    )


def _floor(metric: str, level: Interval, floor: float) -> Check:
    passed = level.value >= floor
    detail = (
        f"{metric} is {level.value:.1f} (interval {level.low:.1f} to {level.high:.1f}), "
        f"{'at least' if passed else 'below'} the floor of {floor:.1f}"
    )
    return Check(
        name="floor",
        metric=metric,
        **asdict(level),
        threshold=floor,
        passed=passed,
        detail=detail,
    )


def _outcome(checks: list[Check]) -> tuple[Outcome, tuple[str, ...]]:
    failed = [check for check in checks if not check.passed]
    if not failed:
        primary = [check for check in checks if check.name.startswith("primary")]
        return Outcome.PROMOTE, tuple(check.detail for check in primary)
    hopeless = [
        check
        for check in failed
        if not check.name.startswith("primary") or check.high <= check.threshold
    ]
    if hopeless:
        return Outcome.REJECT, tuple(check.detail for check in hopeless)
    reasons = (f"{check.detail}, the upper end is: more questions could tell" for check in failed)
    return Outcome.INCONCLUSIVE, tuple(reasons)
