"""What is reported beside the gate's intervals: p-values, and what the test set could have shown.

No p-value decides: a difference can be significant and too small to matter. They are here because
reviewers ask for them, each beside its Holm-adjusted value, since several metrics are read at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.evaluation.power import minimum_detectable_effect
from rag.evaluation.significance import holm, mcnemar, permutation_test
from rag.evaluation.statistics import FloatVector
from rag.release.quantities import Arm, Sampling

_POWER = 0.8
_DECIMALS = 6
#: Metrics of the corpus: they are no mean of questions, so nothing can be permuted.
_OF_THE_CORPUS = ("bleu",)


def significance(
    ours: Arm,
    theirs: Arm,
    metrics: Sequence[str],
    sampling: Sampling,
) -> dict[str, dict[str, float]]:
    """By metric the two-sided `permutation_p`, its `holm_p`, and `mcnemar_p` of exact match."""
    found, drawn = {}, sampling.resampling
    for metric in metrics:
        if metric in _OF_THE_CORPUS:
            continue
        differences, owners = _differences(ours, theirs, metric, sampling)
        p = permutation_test(differences, owners, resamples=drawn.resamples, seed=drawn.seed)
        found[metric] = {"permutation_p": round(p, _DECIMALS)}
    if not found:
        return {}
    adjusted = holm({metric: values["permutation_p"] for metric, values in found.items()})
    for metric, p in adjusted.items():
        found[metric]["holm_p"] = round(p, _DECIMALS)
    if "exact_match" in found:
        right, champion_right = (arm.column("exact_match") == 1.0 for arm in (ours, theirs))
        found["exact_match"]["mcnemar_p"] = round(mcnemar(right, champion_right), _DECIMALS)
    return found


def detectable_effect(ours: Arm, theirs: Arm, metric: str, sampling: Sampling) -> float | None:
    """Points above the threshold that are shown four times out of five.

    None where that is unknown: for a metric of the corpus, of one document, or of equal answers.
    """
    if metric in _OF_THE_CORPUS:
        return None
    differences, owners = _differences(ours, theirs, metric, sampling)
    if len(set(owners)) < 2 or np.ptp(differences) == 0.0:
        return None
    effect = minimum_detectable_effect(
        differences,
        len(differences),
        clusters=owners,
        power=_POWER,
        confidence=sampling.resampling.confidence,
    )
    return round(float(effect), 2)


def _differences(
    ours: Arm, theirs: Arm, metric: str, sampling: Sampling
) -> tuple[FloatVector, list[str]]:
    """Points by question, of the questions that count, and the document of each."""
    level = ours.level(metric)
    rows = np.flatnonzero(level.counted).tolist()
    values = level.columns[rows, 0] - theirs.level(metric).columns[rows, 0]
    return values, [sampling.clusters[row] for row in rows]
