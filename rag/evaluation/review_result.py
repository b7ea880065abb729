"""What people said of two systems: wins, losses, ties, a win rate with its interval, agreement.

A win counts 1, a tie or two bad answers a half, a loss 0; the verdicts of several raters on one
question are averaged first, so that a question weighs the same however many judged it. Answers that
both systems gave alike are ties that nobody was asked about: with c questions whose answers differ
and i that do not, the win rate over all questions is (c * w + i / 2) / (c + i), where w is the mean
over the judged ones, a random sample of the c.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import fsum, sqrt
from statistics import NormalDist
from typing import Any, Final, Literal

from rag.errors import MetricError
from rag.evaluation.review_agreement import Agreement, agreement_of
from rag.evaluation.review_sheet import ReviewKey, System
from rag.evaluation.review_verdicts import Verdict
from rag.evaluation.statistics import Interval, Resampling, bootstrap_interval

Outcome = Literal["win", "loss", "tie", "both_bad"]
_SCORES: Final[Mapping[Outcome, float]] = {"win": 1.0, "tie": 0.5, "both_bad": 0.5, "loss": 0.0}
BOOTSTRAP: Final = "percentile bootstrap, documents resampled"
WILSON: Final = "Wilson score, every document alike"


@dataclass(frozen=True)
class Judgement:
    """One rater's verdict on one question, seen from the challenger."""

    question_id: str
    document_id: str | None
    rater: str
    outcome: Outcome
    comment: str


@dataclass(frozen=True)
class HumanResult:
    """How often people prefer the challenger, in percent, and on how much that rests.

    `judged` counts questions, `judgements` verdicts; `wins`, `losses`, `ties` and `both_bad` count
    verdicts. `win_rate` is over all `n_questions`, with the `n_identical` as ties, and
    `win_rate_changed` over those whose answers differ. `method` says how the intervals were made.
    `first_shown` is the share, in percent, of decided verdicts that went to side A: far from 50,
    habit judged. It is None where nothing was decided.
    """

    challenger: System
    opponent: System
    n_questions: int
    n_identical: int
    judged: int
    judgements: int
    wins: int
    losses: int
    ties: int
    both_bad: int
    win_rate: Interval
    win_rate_changed: Interval
    method: str
    first_shown: float | None
    raters: tuple[str, ...]
    agreement: Agreement | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


Verdicts = Mapping[str, Sequence[Verdict]]


def judgements_of(key: ReviewKey, verdicts: Verdicts) -> list[Judgement]:
    """The verdicts of each rater with the sides taken off, in the order of the sheet."""
    rows = {row.row: row for row in key.rows}
    return [
        Judgement(
            question_id=rows[verdict.row].question_id,
            document_id=rows[verdict.row].document_id,
            rater=rater,
            outcome=_outcome(verdict, rows[verdict.row].challenger),
            comment=verdict.comment,
        )
        for rater, given in verdicts.items()
        for verdict in given
    ]


def human_result(
    reviews: Sequence[tuple[ReviewKey, Verdicts]], resampling: Resampling
) -> HumanResult:
    """The result of all reviews of the same two systems on the same questions, taken together.

    Samples may overlap. Agreement is that of a single review; of several it is None, since their
    raters judged different sheets. MetricError where nothing was judged, or where the reviews
    compare different things.
    """
    reviews = [(key, verdicts) for key, verdicts in reviews if verdicts]
    if not reviews:
        raise MetricError("review: nobody has judged yet; hand in verdicts: ragloop review import")
    first = reviews[0][0]
    for key, _ in reviews[1:]:
        if _subject(key) != _subject(first):
            raise MetricError(f"reviews {first.review} and {key.review} compare different answers")
    judgements = [item for key, verdicts in reviews for item in judgements_of(key, verdicts)]
    counts = Counter(judgement.outcome for judgement in judgements)
    changed, method = win_rate(judgements, resampling)
    sides = Counter(
        verdict.choice
        for _, verdicts in reviews
        for given in verdicts.values()
        for verdict in given
    )
    decided = sides["A"] + sides["B"]
    return HumanResult(
        challenger=first.challenger,
        opponent=first.opponent,
        n_questions=first.n_questions,
        n_identical=first.n_identical,
        judged=len({judgement.question_id for judgement in judgements}),
        judgements=len(judgements),
        wins=counts["win"],
        losses=counts["loss"],
        ties=counts["tie"],
        both_bad=counts["both_bad"],
        win_rate=_over_all(changed, first.n_questions, first.n_identical),
        win_rate_changed=changed,
        method=method,
        first_shown=100.0 * sides["A"] / decided if decided else None,
        raters=tuple(sorted({judgement.rater for judgement in judgements})),
        agreement=_agreement(reviews[0][1]) if len(reviews) == 1 else None,
    )


def win_rate(judgements: Sequence[Judgement], resampling: Resampling) -> tuple[Interval, str]:
    """The mean score of the judged questions in percent, and the name of the interval's method.

    Whole documents are resampled. Where every document has the same mean, resampling would give an
    interval without width: then it is Wilson's, with documents for its number of trials. One
    document alone says nothing about others: 0 to 100.
    """
    scores: dict[str, list[float]] = {}
    clusters: dict[str, str] = {}
    for item in judgements:
        scores.setdefault(item.question_id, []).append(_SCORES[item.outcome])
        document = item.document_id
        clusters[item.question_id] = (
            f"question {item.question_id}" if document is None else f"document {document}"
        )
    means = {question: fsum(given) / len(given) for question, given in scores.items()}
    by_document: dict[str, list[float]] = {}
    for question, mean in means.items():
        by_document.setdefault(clusters[question], []).append(mean)
    levels = {fsum(given) / len(given) for given in by_document.values()}
    if len(levels) == 1 and len(by_document) > 1:
        share = levels.pop()
        return _percent(wilson_interval(share, len(by_document), resampling.confidence)), WILSON
    interval = bootstrap_interval(
        list(means.values()), list(clusters.values()), **asdict(resampling), bounds=(0.0, 1.0)
    )
    return _percent(interval), BOOTSTRAP


def wilson_interval(share: float, n: int, confidence: float) -> Interval:
    """Wilson's score interval of a share of n trials (Wilson 1927), 0 to 1.

    Trials between 0 and 1 vary less than those of 0 and 1 alone, so ties as halves leave it wide
    enough.
    """
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    middle = (share + z * z / (2 * n)) / (1.0 + z * z / n)
    half = z * sqrt(share * (1.0 - share) / n + z * z / (4 * n * n)) / (1.0 + z * z / n)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def _outcome(verdict: Verdict, challenger: str) -> Outcome:
    if verdict.choice in ("tie", "both_bad"):
        return verdict.choice
    return "win" if verdict.choice == challenger else "loss"


def _agreement(verdicts: Verdicts) -> Agreement | None:
    return agreement_of(
        {rater: [item.choice for item in verdicts[rater]] for rater in sorted(verdicts)}
    )


def _over_all(changed: Interval, n_questions: int, n_identical: int) -> Interval:
    share = n_identical / n_questions
    value, low, high = (
        (1.0 - share) * end + share * 50.0 for end in (changed.value, changed.low, changed.high)
    )
    return Interval(value, low, high)


def _subject(key: ReviewKey) -> tuple[Any, ...]:
    where = tuple(sorted((name, tuple(values)) for name, values in key.where.items()))
    return key.challenger.answers, key.opponent.answers, key.n_questions, where


def _percent(interval: Interval) -> Interval:
    return Interval(100.0 * interval.value, 100.0 * interval.low, 100.0 * interval.high)
