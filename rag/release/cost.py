"""Time and memory of two systems that answered the same questions in turn, judged as data.

The measuring is the flow's; here are the numbers it hands over, and the ratio challenger / champion
of their quantiles, with a bootstrap over the questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rag.errors import ReleaseError
from rag.evaluation.statistics import Interval, Resampling
from rag.params import CostParams
from rag.release.decision import Check

_QUANTILES = {"p50": 0.5, "p95": 0.95}
_DECIMALS = 4


@dataclass(frozen=True)
class CostSample:
    """Seconds that each question took, the fastest of all rounds, and the peak memory in bytes."""

    champion_seconds: Sequence[float]
    challenger_seconds: Sequence[float]
    champion_bytes: int
    challenger_bytes: int

    @property
    def detail(self) -> str:
        """Median seconds a question of both systems, as one line."""
        ours, theirs = np.median(self.challenger_seconds), np.median(self.champion_seconds)
        return f"{ours:.3f} s a question, the champion {theirs:.3f} s"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that `from_json` reads back."""
        record = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in record.items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> CostSample:
        """The sample that `to_json` wrote."""
        return cls(
            champion_seconds=tuple(record["champion_seconds"]),
            challenger_seconds=tuple(record["challenger_seconds"]),
            champion_bytes=int(record["champion_bytes"]),
            challenger_bytes=int(record["challenger_bytes"]),
        )


def cost_checks(
    sample: CostSample | None, params: CostParams, resampling: Resampling
) -> list[Check]:
    """A check for each bound in `params`; ReleaseError where it was not measured, or wrongly."""
    bounds = {"p50": params.p50_ratio, "p95": params.p95_ratio}
    wanted = {name: bound for name, bound in bounds.items() if bound is not None}
    if not wanted and params.memory_ratio is None:
        return []
    if sample is None:
        raise ReleaseError("gate.cost is set, and neither time nor memory was measured")
    found = _ratios(sample, wanted, resampling)
    checks = [_check(f"latency_{name}", found[name], bound) for name, bound in wanted.items()]
    if params.memory_ratio is not None:
        if min(sample.champion_bytes, sample.challenger_bytes) <= 0:
            raise ReleaseError("gate.cost: the peak memory of a system is missing")
        value = round(sample.challenger_bytes / sample.champion_bytes, _DECIMALS)
        checks.append(_check("memory", Interval(value, value, value), params.memory_ratio))
    return checks


def _ratios(
    sample: CostSample, wanted: Mapping[str, float], resampling: Resampling
) -> dict[str, Interval]:
    """Ratios of quantiles with percentile intervals; the same questions are drawn for both."""
    ours = np.asarray(sample.challenger_seconds, dtype=np.float64)
    theirs = np.asarray(sample.champion_seconds, dtype=np.float64)
    if ours.shape != theirs.shape or len(ours) < 2:
        raise ReleaseError(
            f"gate.cost: {len(ours)} times of the challenger and {len(theirs)} of the champion; "
            "expected the same questions, two or more"
        )
    both = np.stack([ours, theirs])  # (2, Q)
    if not (np.isfinite(both).all() and (both > 0.0).all()):
        raise ReleaseError("gate.cost: a time is not a positive number of seconds")
    generator = np.random.default_rng(resampling.seed)
    drawn = generator.integers(0, len(ours), size=(resampling.resamples, len(ours)))
    tails = [(1.0 - resampling.confidence) / 2.0, (1.0 + resampling.confidence) / 2.0]
    found = {}
    for name in wanted:
        level = _QUANTILES[name]
        value = np.quantile(ours, level) / np.quantile(theirs, level)
        times = np.quantile(both[:, drawn], level, axis=2)  # (2, R)
        low, high = np.quantile(times[0] / times[1], tails)
        found[name] = Interval(*(round(float(end), _DECIMALS) for end in (value, low, high)))
    return found


def _check(metric: str, ratio: Interval, bound: float) -> Check:
    passed = ratio.high <= bound
    return Check(
        name="cost against champion",
        metric=metric,
        **asdict(ratio),
        threshold=bound,
        passed=passed,
        detail=(
            f"{metric} is {ratio.value:.2f} times the champion's (interval {ratio.low:.2f} to "
            f"{ratio.high:.2f}); the upper end {'is' if passed else 'is not'} at most {bound:.2f}"
        ),
        conclusive=passed or ratio.low > bound,
    )
