"""The numbers that SQuAD 2.0's evaluation script prints, under its names, joined by question id.

Exact match and F1 over all questions, over those with an answer and over those without; and, where
each prediction comes with a probability that there is no answer, the best that a threshold on it
could have given (Rajpurkar, Jia and Liang, Know What You Don't Know, 2018). Text is compared by the
rules of `answer_scores`, which on English are those of the script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.answer_scores import exact_match, token_f1
from rag.evaluation.metric_groups import refuse
from rag.evaluation.selective import best_threshold

FloatVector = npt.NDArray[np.float64]


def squad_v2_scores(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    no_answer: Mapping[str, float] | None = None,
    *,
    threshold: float = 1.0,
) -> tuple[dict[str, float], dict[str, FloatVector]]:
    """The script's numbers in percent, and the `exact` and `f1` of each question (N,), 0 to 1.

    A question whose accepted answers are none, or empty, has none. `no_answer` is the probability
    of that: an answer whose probability is above `threshold` counts as declined.
    `best_exact_thresh` and `best_f1_thresh` are the probabilities up to which it is best to answer,
    minus infinity where it is best never to (the script prints 0 there). Raises MetricError naming
    questions that are missing on either side, and probabilities that are not finite.
    """
    if not references:
        raise MetricError("squad_v2: there is no question to score")
    refuse("squad_v2: no prediction for", [name for name in references if name not in predictions])
    refuse("squad_v2: unknown questions", [name for name in predictions if name not in references])
    accepted = [[text for text in texts if text.strip()] for texts in references.values()]
    texts = [predictions[name] for name in references]
    pairs = list(zip(texts, accepted, strict=True))
    raw = {
        "exact": np.array([exact_match(text, gold) for text, gold in pairs]),  # (N,)
        "f1": np.array([token_f1(text, gold) for text, gold in pairs]),
    }
    declined = np.array([float(not gold) for gold in accepted])
    scores = raw
    best: dict[str, float] = {}
    if no_answer is not None:
        lacking = [name for name in references if name not in no_answer]
        refuse("squad_v2: no probability of no answer for", lacking)
        doubt = np.array([no_answer[name] for name in references])
        not_finite = [
            name for name, known in zip(references, np.isfinite(doubt), strict=True) if not known
        ]
        refuse("squad_v2: the probability of no answer is not finite for", not_finite)
        scores = {name: np.where(doubt > threshold, declined, each) for name, each in raw.items()}
        for name, each in raw.items():
            found = best_threshold(-doubt, each, declined)
            best |= {f"best_{name}": 100.0 * found.score, f"best_{name}_thresh": -found.threshold}
    numbers = _means("", scores, np.ones(len(declined), dtype=bool))
    for prefix, chosen in (("HasAns_", declined == 0), ("NoAns_", declined == 1)):
        numbers |= _means(prefix, scores, chosen) if chosen.any() else {}
    return numbers | best, scores


def _means(
    prefix: str, scores: Mapping[str, FloatVector], chosen: npt.NDArray[np.bool_]
) -> dict[str, float]:
    means = {f"{prefix}{name}": 100.0 * float(each[chosen].mean()) for name, each in scores.items()}
    return means | {f"{prefix}total": int(chosen.sum())}
