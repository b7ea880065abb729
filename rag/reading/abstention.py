"""When the system declines to answer: the checks that an answer passes before it is given.

An answer must not be empty, must stand in a passage that was read, and must be at least as
confident as the threshold that was chosen on dev. Otherwise the system abstains and shows the
passages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rag.records import Answer
from rag.retrieval.relevance import contains

#: (prediction, gold answers) -> 0..1; an empty prediction is right where there is no gold answer.
AnswerScore = Callable[[str, Sequence[str]], float]


def checked(answer: Answer, threshold: float | None) -> Answer:
    """The answer, or the abstention that takes its place."""
    confident = threshold is None or answer.score >= threshold
    if not answer.abstained and answer.text and is_supported(answer) and confident:
        return answer
    return replace(answer, text="", abstained=True)


def is_supported(answer: Answer) -> bool:
    """Whether the answer's words stand in one of the passages it was read from."""
    return any(contains(evidence.text, answer.text) for evidence in answer.evidence)


def choose_threshold(
    answers: Sequence[Answer], gold: Sequence[Sequence[str]], score: AnswerScore
) -> float | None:
    """The confidence below which abstaining gives the best mean score on these questions.

    None where never abstaining on confidence is as good as any threshold. A threshold lies halfway
    between two neighbouring confidences, so that it does not hang on one dev answer.
    """
    given = [checked(answer, None) for answer in answers]
    kept = [score(answer.text, right) for answer, right in zip(given, gold, strict=True)]
    dropped = [score("", right) for right in gold]
    order = sorted(range(len(given)), key=lambda i: given[i].score)
    best, best_gain, gain = None, 0.0, 0.0
    for position, i in enumerate(order[:-1]):
        gain += dropped[i] - kept[i]
        score_here, score_next = given[i].score, given[order[position + 1]].score
        if score_here < score_next and gain > best_gain + 1e-9:
            best, best_gain = (score_here + score_next) / 2, gain
    return best
