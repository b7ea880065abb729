"""When to say nothing: thresholds on a system's score that there is no answer, as SQuAD 2.0 does.

A question whose score is above the threshold is declined: then it is right exactly if it has no
answer. The rule and the search for the best threshold are those of the official script of SQuAD 2.0
(Rajpurkar et al., 2018), except in two places where that script contradicts its own rule:

- Questions of equal score are declined together. The script also tries to part them, and reports
  scores that no threshold reaches.
- An answer to an unanswerable question is right if its exact match is 1, so one that normalises to
  nothing counts as nothing in the search too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag.evaluation.statistics import FloatMatrix, FloatVector

BoolVector = npt.NDArray[np.bool_]


def declined(
    texts: Sequence[str | None], no_answer: Sequence[float], threshold: float
) -> list[str | None]:
    """The answers, "" where the score is above the threshold; a missing prediction stays None."""
    return [
        "" if text is not None and score > threshold else text
        for text, score in zip(texts, no_answer, strict=True)
    ]


def best_thresholds(
    scores: FloatMatrix, no_answer: Sequence[float], answerable: BoolVector, given: BoolVector
) -> dict[str, float]:
    """`{"best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"}`, scores in percent.

    `scores` (N, 2) has exact match and F1, 0 to 1, of the answers before any is declined; `given`
    (N,) says where there is a prediction at all: a missing one cannot be made right by declining.
    Of equally good thresholds the lowest is taken.
    """
    confidence = np.asarray(no_answer, dtype=np.float64)
    silent = (~answerable & given).astype(np.float64)
    found: dict[str, float] = {}
    for name, column in (("exact", 0), ("f1", 1)):
        best, threshold = _best(scores[:, column], silent, confidence)
        found |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return found


def _best(scores: FloatVector, silent: FloatVector, confidence: FloatVector) -> tuple[float, float]:
    """The best mean in percent of `scores` up to a threshold and `silent` above, and where."""
    levels, level = np.unique(confidence, return_inverse=True)
    gains = np.bincount(level, weights=scores - silent, minlength=len(levels))
    totals = silent.sum() + np.concatenate([[0.0], np.cumsum(gains)])
    place = int(np.argmax(totals))
    # Everything is declined below the lowest level: at 0, as the script has it, where that is so.
    below = 0.0 if levels[0] > 0.0 else float(np.nextafter(levels[0], -np.inf))
    threshold = float(levels[place - 1]) if place else below
    return 100.0 * float(totals[place]) / len(scores), threshold
