"""How far raters agree beyond chance: Cohen's kappa for two, Fleiss' and a mean of pairs for more.

Agreement is counted over the verdicts as they were given, side A or B: sides are shuffled, so the
share of each side is near a half and kappa does not fall only because one system wins often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum

from rag.errors import MetricError


@dataclass(frozen=True)
class Agreement:
    """Of `raters` on `n` questions: the share of equal verdicts in percent, and kappa.

    `kappa` is Cohen's for two raters and Fleiss' for more, `pairwise` the mean of Cohen's over all
    pairs. Both are None where they are undefined: all verdicts are of one kind, and so agreement by
    chance is certain.
    """

    raters: tuple[str, ...]
    n: int
    observed: float
    kappa: float | None
    pairwise: float | None


def agreement_of(ratings: Mapping[str, Sequence[str]]) -> Agreement | None:
    """Agreement of raters, each with one verdict a question in one order; None for one rater."""
    if len(ratings) < 2:
        return None
    verdicts = list(ratings.values())
    pairs = list(combinations(verdicts, 2))
    kappas = [cohen_kappa(first, second) for first, second in pairs]
    defined = [kappa for kappa in kappas if kappa is not None]
    return Agreement(
        raters=tuple(ratings),
        n=len(verdicts[0]),
        observed=100.0 * fsum(observed_agreement(*pair) for pair in pairs) / len(pairs),
        kappa=kappas[0] if len(pairs) == 1 else fleiss_kappa(verdicts),
        pairwise=fsum(defined) / len(defined) if len(defined) == len(kappas) else None,
    )


def observed_agreement(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of questions with the same verdict of both raters, 0 to 1."""
    _check([first, second])
    return sum(one == other for one, other in zip(first, second, strict=True)) / len(first)


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """(observed - chance) / (1 - chance), chance from each rater's own shares (Cohen 1960).

    None where both gave one and the same verdict to every question.

    >>> cohen_kappa(["A", "A", "B", "B"], ["A", "A", "B", "A"])
    0.5
    """
    _check([first, second])
    n = len(first)
    own, others = Counter(first), Counter(second)
    # In whole numbers until the division, so that what is undefined is exactly so.
    agreed = n * sum(one == other for one, other in zip(first, second, strict=True))
    chance = sum(times * others[label] for label, times in own.items())
    return None if chance == n * n else (agreed - chance) / (n * n - chance)


def fleiss_kappa(ratings: Sequence[Sequence[str]]) -> float | None:
    """The same for two raters or more, chance from the shares of all of them (Fleiss 1971).

    `ratings` holds a sequence of verdicts for each rater. None where all verdicts are the same.
    """
    _check(ratings)
    raters, n = len(ratings), len(ratings[0])
    # Pairs of raters who agree, over all questions, out of raters * (raters - 1) for each.
    agreeing = sum(
        times * (times - 1)
        for question in zip(*ratings, strict=True)
        for times in Counter(question).values()
    )
    totals = Counter(label for verdicts in ratings for label in verdicts)
    if len(totals) == 1:
        return None
    observed = agreeing / (n * raters * (raters - 1))
    chance = sum(times * times for times in totals.values()) / (n * raters) ** 2
    return (observed - chance) / (1.0 - chance)


def _check(ratings: Sequence[Sequence[str]]) -> None:
    lengths = sorted({len(verdicts) for verdicts in ratings})
    if len(ratings) < 2 or len(lengths) > 1 or not lengths[0]:
        raise MetricError(
            f"agreement: expected two raters or more with verdicts on the same questions, "
            f"got {len(ratings)} with {', '.join(map(str, lengths)) or 'no'} verdicts"
        )
