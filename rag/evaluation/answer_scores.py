"""Exact match and token F1 of one answer against its accepted answers, 0 to 1.

The rules are those of SQuAD 1.1 and 2.0 (Rajpurkar et al., 2016 and 2018) over the tokens of
`normalize.answer_tokens`: the best of several accepted answers counts, and a question without an
answer (an empty list) is answered rightly by saying nothing. F1 compares bags of tokens; for
Chinese these are characters, in any order (CMRC 2018's own F1 asks for one common substring).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.normalize import answer_tokens
from rag.evaluation.token_counts import TextTable, blocks_of_pairs, clipped_matches


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when the prediction equals an accepted answer after normalisation, else 0.0."""
    predicted = answer_tokens(prediction)
    return float(any(predicted == answer_tokens(answer) for answer in answers or ("",)))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 over the accepted answers; 1.0 for nothing against nothing."""
    predicted = answer_tokens(prediction)
    return max(_bag_f1(predicted, answer_tokens(answer)) for answer in answers or ("",))


def answer_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.float64]:
    """`exact_match` and `token_f1` of many answers at once, (N, 2): the same values, faster."""
    if len(predictions) != len(references):
        raise MetricError(
            f"answer scores: {len(predictions)} predictions but {len(references)} lists of answers"
        )
    scores = np.empty((len(predictions), 2))
    for pairs in blocks_of_pairs(predictions, references):
        table = TextTable(answer_tokens)
        predicted = table.add(pairs.predictions)[pairs.owner]  # (P,)
        accepted = table.add(pairs.answers)  # (P,)
        equal = predicted == accepted
        tokens = table.sequences()
        ours, theirs = tokens.take(predicted), tokens.take(accepted)
        size = ours.lengths + theirs.lengths
        f1 = 2.0 * clipped_matches(ours, theirs) / np.maximum(size, 1)
        scores[pairs.rows, 0] = pairs.best(equal.astype(np.float64))
        scores[pairs.rows, 1] = pairs.best(np.where(equal, 1.0, f1))
    return scores


def _bag_f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = (Counter(predicted) & Counter(gold)).total()
    return 2.0 * common / (len(predicted) + len(gold))
