"""What the gate gets of human evaluation: the result of all reviews of the answers it compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rag.artifacts import Artifacts
from rag.evaluation.review_folder import read_reviews
from rag.evaluation.review_result import HumanResult, human_result
from rag.evaluation.review_sample import answers_digest
from rag.evaluation.statistics import Resampling
from rag.params import Params
from rag.records import read_table

if TYPE_CHECKING:
    from pyarrow import Table

    from rag.release.gate import Check


def human_checks(
    artifacts: Artifacts,
    params: Params,
    challenger: Table,
    champion: Table | None,
    baselines: Mapping[str, Table],
) -> tuple[Check, ...]:
    """The gate's guard on human evaluation; none where `gate.human` is null.

    Without a champion, people compare with the first baseline.
    """
    if params.gate.human is None:
        return ()
    from rag.release.human import human_check

    name, opponent = next(iter(baselines.items())) if champion is None else ("champion", champion)
    human = human_result_of(artifacts, params, *map(answers_digest, (challenger, opponent)))
    check = human_check(
        human, params.gate.human, challenger=challenger, opponent=opponent, compared_with=name
    )
    return (check,)


def has_news(artifacts: Artifacts, params: Params, row: Mapping[str, Any]) -> bool:
    """Whether people have judged since the decision in a ledger row that their verdict held back.

    Then the same answers may be decided again, although nothing else has changed.
    """
    if params.gate.human is None or not artifacts.predictions.exists():
        return False
    from rag.release.human import METRIC, is_enough

    checks = (row.get("decision") or {}).get("checks", ())
    held_back = [check for check in checks if check["metric"] == METRIC and not check["passed"]]
    if not held_back:
        return False
    known = {(check["low"], check["high"]) for check in held_back}
    challenger = answers_digest(answers_of(artifacts, "tuned"))
    opponents = {
        review.key.opponent.answers
        for review in read_reviews(artifacts.reviews)
        if review.key.challenger.answers == challenger
    }
    results = [human_result_of(artifacts, params, challenger, other) for other in opponents]
    return any(
        is_enough(result, params.gate.human)
        and (result.win_rate.low, result.win_rate.high) not in known
        for result in results
        if result is not None
    )


def human_result_of(
    artifacts: Artifacts, params: Params, challenger: str, opponent: str
) -> HumanResult | None:
    """What people said of exactly these answers, given by their digests; None while nobody has.

    Every review of them counts, whoever it favours; one of a slice says nothing about the whole.
    """
    found = [
        (review.key, review.verdicts)
        for review in read_reviews(artifacts.reviews)
        if review.verdicts
        and not review.key.where
        and (review.key.challenger.answers, review.key.opponent.answers) == (challenger, opponent)
    ]
    return human_result(found, resampling(params)) if found else None


def answers_of(artifacts: Artifacts, system: str) -> Table:
    """What a system answered in the last run; no rows where it was not asked."""
    import pyarrow.compute as pc

    table = read_table(artifacts.predictions)
    return table.filter(pc.equal(table["system"], system))


def resampling(params: Params) -> Resampling:
    """How the intervals of reviews are made: as those of the metrics."""
    return Resampling(params.evaluate.resamples, params.evaluate.confidence, params.seed)
