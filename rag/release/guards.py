"""The gate's checks: what must not get worse, and what must hold of every release.

A guard is a non-inferiority test: the interval of the loss must lie within the margin. All guards
must pass for a promotion, so a release that is worse by more than one margin is promoted with the
chance of that guard alone at most, however many there are (an intersection-union test; Berger
1982). A correction such as Holm's would only make each guard harder to pass. A guard that was not
passed is a rejection only where the whole interval lies beyond the margin; otherwise the evidence
is not enough.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from rag.errors import ReleaseError
from rag.evaluation.statistics import Interval
from rag.params import GateParams, SliceParams
from rag.release.decision import Check
from rag.release.quantities import (
    ABSTENTION,
    LENGTH,
    Arm,
    Mask,
    Quantity,
    Sampling,
    difference,
    measure,
    ratio,
)

#: Dimensions that are columns of their own; all others are keys of the questions' slices.
_COLUMNS = ("language", "answerable")


def gain_check(
    name: str, metric: str, gain: Interval, threshold: float, *, other: str, n_questions: int
) -> Check:
    """Whether the lower end of a gain in points exceeds a threshold; of a guard it is negative."""
    passed = gain.low > threshold
    return Check(
        name=name,
        metric=metric,
        **asdict(gain),
        threshold=threshold,
        passed=passed,
        detail=(
            f"{metric} {gain.value:+.1f} points against {other} (interval {gain.low:+.1f} to "
            f"{gain.high:+.1f}); the lower end {'is' if passed else 'is not'} above "
            f"{threshold:+.1f}"
        ),
        conclusive=passed or gain.high <= threshold,
        n_questions=n_questions,
    )


def floor_check(metric: str, level: Interval, floor: float, n_questions: int) -> Check:
    """Whether a level in percent is at least its floor; the point value counts."""
    passed = level.value >= floor
    return Check(
        name="floor",
        metric=metric,
        **asdict(level),
        threshold=floor,
        passed=passed,
        detail=(
            f"{metric} is {level.value:.1f} (interval {level.low:.1f} to {level.high:.1f}), "
            f"{'at least' if passed else 'below'} the floor of {floor:.1f}"
        ),
        n_questions=n_questions,
    )


def slice_checks(
    challenger: Arm, champion: Arm, params: SliceParams, sampling: Sampling
) -> list[Check]:
    """A check for each guard in each slice; a slice of all questions says what the guards say.

    A slice in which no question counts for a guard (recall where nothing is answerable) has nothing
    to lose. ReleaseError for a dimension that no question has.
    """
    gains = {
        metric: difference(challenger.level(metric), champion.level(metric))
        for metric in params.guards
    }
    checks = []
    for dimension in params.by if params.guards else ():
        for value, rows in _slices(challenger, dimension).items():
            counted = {
                metric: gain for metric, gain in gains.items() if (gain.counted & rows).any()
            }
            if rows.all() or not counted:
                continue
            where = f"slice {dimension}={value}"
            for metric, found in measure(counted, sampling, rows).items():
                check = gain_check(
                    f"{where} against champion",
                    metric,
                    found,
                    -params.guards[metric],
                    other=f"champion on {where}",
                    n_questions=int((gains[metric].counted & rows).sum()),
                )
                small = check.n_questions < params.min_questions
                checks.append(_too_small(check, params) if small else check)
    return checks


def behaviour(challenger: Arm, champion: Arm, params: GateParams) -> dict[str, Quantity]:
    """What says whether the challenger declines, and words its answers, much as the champion."""
    found = {}
    if params.max_abstention_gain is not None:
        found[ABSTENTION] = difference(challenger.level(ABSTENTION), champion.level(ABSTENTION))
    if params.max_length_ratio is not None:
        found[LENGTH] = ratio(challenger.level(LENGTH), champion.level(LENGTH))
    return found


def behaviour_check(metric: str, found: Interval, params: GateParams, n_questions: int) -> Check:
    """Whether the whole interval of one of `behaviour` is within its bound."""
    if metric == ABSTENTION:
        low, limit = -100.0, float(params.max_abstention_gain or 0.0)
        what = "points more than the champion's"
    else:
        limit = float(params.max_length_ratio or 1.0)
        low = 1.0 / limit
        what = "times the champion's"
    passed = low <= found.low and found.high <= limit
    return Check(
        name="behaviour against champion",
        metric=metric,
        **asdict(found),
        threshold=limit,
        passed=passed,
        detail=(
            f"{metric} {found.value:.2f} {what} (interval {found.low:.2f} to {found.high:.2f}); "
            f"it {'is' if passed else 'is not'} within {low:.2f} to {limit:.2f}"
        ),
        conclusive=passed or found.low > limit or found.high < low,
        n_questions=n_questions,
    )


def collapse_check(challenger: Arm, least: float) -> Check:
    """Whether the best passages differ: a collapsed retriever finds the same few for everything."""
    best = [
        next((item["chunk_id"] for item in found or () if item["rank"] == 1), None)
        for found in challenger.table["evidence"].to_pylist()
    ]
    share = round(100.0 * len({chunk for chunk in best if chunk is not None}) / len(best), 4)
    passed = share >= least
    return Check(
        name="collapse",
        metric="distinct_top1",
        value=share,
        low=share,
        high=share,
        threshold=least,
        passed=passed,
        detail=(
            f"the best passages of {len(best)} questions are {share:.1f} % different ones, "
            f"{'at least' if passed else 'below'} {least:.1f} %"
        ),
        n_questions=len(best),
    )


def budget_check(decisions_before: int, warn: int, refuse: int) -> tuple[Check, tuple[str, ...]]:
    """Whether this version of the test set may decide again, and a note when it soon may not."""
    number = decisions_before + 1
    passed = number <= refuse
    advice = "new test questions make a new budget"
    detail = f"decision {number} on this version of the test set, of at most {refuse}"
    check = Check(
        name="budget",
        metric="decisions",
        value=float(number),
        low=float(number),
        high=float(number),
        threshold=float(refuse),
        passed=passed,
        detail=detail if passed else f"{detail}: it is used up; {advice}",
        conclusive=passed,
    )
    return check, (f"{detail}; {advice}",) if passed and number > warn else ()


def _too_small(check: Check, params: SliceParams) -> Check:
    detail = (
        f"{check.detail}; {check.n_questions} questions are fewer than min_questions "
        f"({params.min_questions}) and decide nothing"
    )
    changed = {"passed": False, "conclusive": False, "decides": params.small == "block"}
    return Check(**{**asdict(check), **changed, "detail": detail})


def _slices(arm: Arm, dimension: str) -> Mapping[str, Mask]:
    if dimension in _COLUMNS:
        values = [str(value) for value in arm.table[dimension].to_pylist()]
    else:
        found = [json.loads(text).get(dimension) for text in arm.table["slices"].to_pylist()]
        values = ["" if value is None else str(value) for value in found]
    named = np.array(values)
    names = sorted(set(values) - {""})
    if not names:
        raise ReleaseError(f"gate.slices: no question has {dimension!r}")
    return {name: named == name for name in names}
