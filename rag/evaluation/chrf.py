"""chrF by sacrebleu's rules, for any script, with what is needed to resample it.

chrF2 compares character 1- to 6-grams, white space left out, and weighs recall four times precision
(Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015). It needs no tokenizer,
so Chinese and Korean are scored as they stand. Each example is counted alone against its best
reference; `chrf_of` turns sums of these counts into chrF for thousands of resamples at once, and
agrees with `sacrebleu.corpus_chrf` on the whole.

One thing differs: nothing against nothing is right and scores 100, where sacrebleu gives 0. So an
empty prediction is counted against an accepted empty text, wherever that stands in the list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError

FloatVector = npt.NDArray[np.float64]
FloatMatrix = npt.NDArray[np.float64]
MAX_ORDER = 6
#: Recall counts BETA squared times as much as precision.
BETA = 2
#: Characters of both sides, then n-grams predicted, accepted and matched, of each order. Only the
#: first can tell "nothing against nothing" from "something against nothing".
STATISTICS = 1 + 3 * MAX_ORDER


def chrf_signature() -> str:
    """What to quote beside the number, as sacrebleu writes it, and sacrebleu's version."""
    import sacrebleu

    return f"case:mixed|eff:yes|nc:{MAX_ORDER}|nw:0|space:no|version:{sacrebleu.__version__}"


def chrf(prediction: str, answers: Sequence[str]) -> float:
    """chrF of one answer against the best accepted answer, 0 to 1; 1.0 for nothing for nothing."""
    return float(chrf_of(_best_counts(prediction, answers or ("",))[None, :])[0] / 100.0)


def chrf_statistics(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatMatrix:
    """Counts of each example, (N, STATISTICS); their column sums determine corpus chrF."""
    if len(predictions) != len(references):
        raise MetricError(
            f"chrf: {len(predictions)} predictions but {len(references)} lists of references"
        )
    counts = np.zeros((len(predictions), STATISTICS))
    for row, (prediction, accepted) in enumerate(zip(predictions, references, strict=True)):
        if not accepted:
            raise MetricError(f"chrf: example {row} has no reference; chrF needs at least one")
        counts[row] = _best_counts(prediction, accepted)
    return counts


def chrf_of(sums: FloatMatrix) -> FloatVector:
    """chrF in percent for each row of summed counts: (R, STATISTICS) -> (R,)."""
    predicted, accepted, matched = (sums[:, 1 + kind :: 3] for kind in range(3))  # (R, 6) each
    present = (predicted > 0) & (accepted > 0)
    # sacrebleu's effective order: precision and recall are means over the orders that both have.
    orders = np.maximum(present.sum(axis=1), 1)
    precision = _ratio(matched, predicted, present).sum(axis=1) / orders
    recall = _ratio(matched, accepted, present).sum(axis=1) / orders
    weighted = BETA**2 * precision + recall
    score = 100.0 * _ratio((1 + BETA**2) * precision * recall, weighted, weighted > 0)
    return np.where(sums[:, 0] == 0, 100.0, score)


def corpus_chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """chrF of the whole in percent; each example may have any number of references."""
    if not predictions:
        raise MetricError("chrf: there is no example to score")
    sums = chrf_statistics(predictions, references).sum(axis=0, keepdims=True)
    return float(chrf_of(sums)[0])


def _best_counts(prediction: str, accepted: Sequence[str]) -> FloatVector:
    """Counts against the reference of the best score, the first of equals: (STATISTICS,)."""
    ours = _grams(prediction)
    counts = np.array([_counts(ours, _grams(reference)) for reference in accepted])
    best: FloatVector = counts[np.argmax(chrf_of(counts))] if len(counts) > 1 else counts[0]
    return best


def _counts(ours: list[Counter[str]], theirs: list[Counter[str]]) -> list[float]:
    counts: list[float] = [ours[0].total() + theirs[0].total()]
    for predicted, accepted in zip(ours, theirs, strict=True):
        wanted = accepted.total()
        # As in sacrebleu: where the reference has no n-gram of an order, ours do not count.
        counts += [predicted.total() if wanted else 0, wanted, (predicted & accepted).total()]
    return counts


def _grams(text: str) -> list[Counter[str]]:
    """Character n-grams of each order, 1 to MAX_ORDER, white space left out."""
    text = "".join(text.split())
    return [
        Counter(text[start : start + order] for start in range(len(text) - order + 1))
        for order in range(1, MAX_ORDER + 1)
    ]


def _ratio(
    part: FloatMatrix, whole: FloatMatrix, defined: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    return np.where(defined, part / np.where(defined, whole, 1.0), 0.0)
