"""The guard on human evaluation: it passes at the lower end, and asks for more where it must."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from rag.errors import ParamsError, ReleaseError
from rag.evaluation.review_result import HumanResult, human_result
from rag.evaluation.review_sample import answers_digest
from rag.evaluation.review_verdicts import Verdict
from rag.evaluation.statistics import Interval, Resampling
from rag.params import HumanParams, Params, parse_params
from rag.release.gate import Check
from rag.release.human import human_check
from tests.evaluation.review_case import make_review, review_tables

TUNED, CHAMPION = review_tables()


def result(*, low: float, high: float, judged: int = 40, changed: int = 60) -> HumanResult:
    """A result on these tables with the numbers of a larger one."""
    _, key = make_review()
    said = {"ann": [Verdict(row.row, row.challenger) for row in key.rows]}
    own = human_result([(key, said)], Resampling(100, 0.95, 1))
    rate = Interval((low + high) / 2, low, high)
    return replace(own, win_rate=rate, judged=judged, n_questions=changed + 20, n_identical=20)


def check(human: HumanResult | None, **changes: float) -> Check:
    params = HumanParams.model_validate(changes)
    return human_check(human, params, challenger=TUNED, opponent=CHAMPION, compared_with="champion")


def test_it_is_off_by_default() -> None:
    assert Params().gate.human is None
    on = parse_params({"gate": {"floors": {"f1": 30.0}, "human": {}}}).gate.human
    assert on == HumanParams(min_win_rate=50.0, min_judgements=30)
    with pytest.raises(ParamsError, match=r"gate\.human\.min_win_rate"):
        parse_params({"gate": {"floors": {"f1": 30.0}, "human": {"min_win_rate": 0.0}}})
    with pytest.raises(ValidationError):
        HumanParams(min_judgements=0)


def test_the_lower_end_must_reach_the_threshold() -> None:
    passed = check(result(low=50.0, high=70.0))
    assert (passed.passed, passed.value, passed.threshold) == (True, 60.0, 50.0)
    assert (passed.name, passed.metric) == ("human against champion", "human_win_rate")
    assert passed.detail == (
        "people prefer it to champion on 60.0 % of the questions (ties as halves, "
        "interval 50.0 to 70.0, 40 judged); the lower end is at least 50.0"
    )
    unclear = check(result(low=49.9, high=70.0))
    assert unclear.passed is False
    assert unclear.high > unclear.threshold, "more judgements could tell"
    assert "the lower end is not at least 50.0" in unclear.detail
    lost = check(result(low=20.0, high=49.0))
    assert lost.passed is False
    assert lost.high < lost.threshold
    assert check(result(low=46.0, high=60.0), min_win_rate=45.0).passed, "a margin of five points"


def test_too_few_judgements_cannot_tell() -> None:
    few = check(result(low=80.0, high=90.0, judged=29))
    assert (few.passed, few.low, few.high) == (False, 0.0, 100.0)
    assert few.detail.startswith("people judged 29 questions (win rate 85.0), 30 are needed: ragl")
    assert check(result(low=80.0, high=90.0, judged=30)).passed
    none = check(None)
    assert (none.passed, none.low, none.high) == (False, 0.0, 100.0)
    assert none.detail.startswith("nobody has judged the answers yet, 30 questions are needed")


def test_where_all_that_differs_was_judged_it_is_enough() -> None:
    assert check(result(low=55.0, high=60.0, judged=4, changed=4)).passed
    assert not check(result(low=55.0, high=60.0, judged=3, changed=4)).passed


def test_equal_answers_are_all_ties_and_need_no_judge() -> None:
    same = human_check(
        None, HumanParams(), challenger=TUNED, opponent=TUNED, compared_with="champion"
    )
    assert (same.passed, same.low, same.high) == (True, 50.0, 50.0)


def test_judgements_of_other_answers_are_an_error() -> None:
    own = result(low=55.0, high=60.0)
    with pytest.raises(ReleaseError, match=r"other answers of the opponent \(champion\)"):
        human_check(
            replace(own, opponent=replace(own.opponent, answers="another")),
            HumanParams(),
            challenger=TUNED,
            opponent=CHAMPION,
            compared_with="champion",
        )
    changed = replace(own, challenger=replace(own.challenger, answers=answers_digest(CHAMPION)))
    with pytest.raises(ReleaseError, match="other answers of the challenger"):
        check(changed)
