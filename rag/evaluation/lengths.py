"""How long answers are, in tokens and characters, and how many say nothing.

A system that answers in ever longer texts gains recall and loses precision; one that falls silent
loses both. Neither shows in a mean of F1 alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.normalize import answer_tokens


@dataclass(frozen=True)
class AnswerLengths:
    """Lengths of N answers: `tokens` (N,), `characters` (N,), and which are `empty` (N,)."""

    tokens: npt.NDArray[np.int64]
    characters: npt.NDArray[np.int64]
    empty: npt.NDArray[np.bool_]

    @property
    def mean_tokens(self) -> float:
        """Mean number of tokens, empty answers counting 0."""
        return float(self.tokens.mean())

    @property
    def mean_characters(self) -> float:
        """Mean number of characters, empty answers counting 0."""
        return float(self.characters.mean())

    @property
    def empty_rate(self) -> float:
        """Share of answers without a visible character, 0 to 1."""
        return float(self.empty.mean())


def answer_lengths(predictions: Sequence[str]) -> AnswerLengths:
    """The lengths of answers: tokens as exact match and F1 count them, characters as written.

    Tokens are those of `normalize.answer_tokens`: no punctuation, no articles, one a character in
    Chinese. Characters are code points, without the white space at either end. An answer is empty
    when it has no visible character. Raises MetricError when there is no answer.
    """
    if not predictions:
        raise MetricError("answer length: there is no answer to measure")
    tokens = np.array([len(answer_tokens(text)) for text in predictions], dtype=np.int64)
    characters = np.array([len(text.strip()) for text in predictions], dtype=np.int64)
    empty = tokens == 0
    return AnswerLengths(tokens, np.where(empty, 0, characters), empty)
