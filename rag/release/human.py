"""The gate's guard on human evaluation: do people prefer the challenger, as far as they were asked?

A pure function, to be called by the gate where `gate.human` is set. Without enough judgements, or
with an interval around the threshold, it does not pass and says so as an interval that reaches the
threshold: more judgements could tell. Reviews of other answers than those compared are an error.
"""

from __future__ import annotations

import pyarrow as pa

from rag.errors import ReleaseError
from rag.evaluation.review_result import HumanResult
from rag.evaluation.review_sample import answers_digest
from rag.evaluation.statistics import Interval
from rag.params import HumanParams
from rag.release.gate import Check

METRIC = "human_win_rate"
_ANYTHING = Interval(50.0, 0.0, 100.0)
_WAY_ON = "ragloop review sample, then ragloop review import"


def human_check(
    human: HumanResult | None,
    params: HumanParams,
    *,
    challenger: pa.Table,
    opponent: pa.Table,
    compared_with: str,
) -> Check:
    """Passed where the lower end of the win rate is at least `min_win_rate`.

    The tables hold the answers that the gate compares. Raises ReleaseError where people judged
    other ones.
    """
    least, needed = params.min_win_rate, params.min_judgements
    if answers_digest(challenger) == answers_digest(opponent):
        return _check(
            compared_with, Interval(50.0, 50.0, 50.0), least, "both gave the same answers, all ties"
        )
    if human is not None:
        _check_subject(human, challenger, opponent)
    if human is None:
        detail = f"nobody has judged the answers yet, {needed} questions are needed: {_WAY_ON}"
        return _check(compared_with, _ANYTHING, least, detail)
    rate = human.win_rate
    if not is_enough(human, params):
        detail = (
            f"people judged {human.judged} questions (win rate {rate.value:.1f}), "
            f"{needed} are needed: {_WAY_ON}"
        )
        return _check(compared_with, Interval(rate.value, 0.0, 100.0), least, detail)
    detail = (
        f"people prefer it to {compared_with} on {rate.value:.1f} % of the questions (ties as "
        f"halves, interval {rate.low:.1f} to {rate.high:.1f}, {human.judged} judged); "
        f"the lower end {'is' if rate.low >= least else 'is not'} at least {least:.1f}"
    )
    return _check(compared_with, rate, least, detail)


def is_enough(human: HumanResult, params: HumanParams) -> bool:
    """Whether enough was judged to tell: the questions needed, or all that there are to judge."""
    return human.judged >= min(params.min_judgements, human.n_questions - human.n_identical)


def _check(compared_with: str, rate: Interval, least: float, detail: str) -> Check:
    return Check(
        name=f"human against {compared_with}",
        metric=METRIC,
        value=rate.value,
        low=rate.low,
        high=rate.high,
        threshold=least,
        passed=rate.low >= least,
        conclusive=rate.low >= least or rate.high < least,
        detail=detail,
    )


def _check_subject(human: HumanResult, challenger: pa.Table, opponent: pa.Table) -> None:
    for side, table, system in (
        ("challenger", challenger, human.challenger),
        ("opponent", opponent, human.opponent),
    ):
        if answers_digest(table) != system.answers:
            raise ReleaseError(
                f"people judged other answers of the {side} ({system.name}) than those that are "
                f"compared now; draw a new sheet: {_WAY_ON}"
            )
