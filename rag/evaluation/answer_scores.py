"""Exact match and token F1 of one answer against its accepted answers, 0 to 1.

The rules are those of SQuAD 1.1 and 2.0 (Rajpurkar et al., 2016 and 2018) over the tokens of
`normalize.answer_tokens`: the best of several accepted answers counts, and a question without an
answer (an empty list) is answered rightly by saying nothing. F1 compares bags of tokens; for
Chinese these are characters, in any order (CMRC 2018's own F1 asks for one common substring).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rag.evaluation.normalize import answer_tokens


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when the prediction equals an accepted answer after normalisation, else 0.0."""
    predicted = answer_tokens(prediction)
    return float(any(predicted == answer_tokens(answer) for answer in answers or ("",)))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 over the accepted answers; 1.0 for nothing against nothing."""
    predicted = answer_tokens(prediction)
    return max(_bag_f1(predicted, answer_tokens(answer)) for answer in answers or ("",))


def _bag_f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = (Counter(predicted) & Counter(gold)).total()
    return 2.0 * common / (len(predicted) + len(gold))
