"""ROUGE-1, ROUGE-2 and ROUGE-L by rouge_score, over tokens of any script.

rouge_score's own tokenizer keeps only a-z and 0-9, so a right Chinese or Korean answer scores 0;
here it gets `normalize.text_tokens`, which agrees with it on ASCII. Scores are F-measures, 0 to 1,
the best over the accepted answers for each type (Lin, 2004). ROUGE-2 of one-token texts is 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.normalize import text_tokens

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


def rouge(prediction: str, answers: Sequence[str], *, stem: bool = False) -> dict[str, float]:
    """`{"rouge1", "rouge2", "rougeL"}` of one answer; nothing against nothing is 1."""
    accepted = answers or ("",)
    if not prediction.strip() and any(not answer.strip() for answer in accepted):
        return dict.fromkeys(ROUGE_TYPES, 1.0)
    best = _scorer(stem).score_multi(list(accepted), prediction)
    return {kind: float(best[kind].fmeasure) for kind in ROUGE_TYPES}


def rouge_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, stem: bool = False
) -> dict[str, npt.NDArray[np.float64]]:
    """ROUGE of each example, one vector (N,) a type."""
    if len(predictions) != len(references):
        raise MetricError(
            f"rouge: {len(predictions)} predictions but {len(references)} lists of references"
        )
    scores = [
        rouge(prediction, accepted, stem=stem)
        for prediction, accepted in zip(predictions, references, strict=True)
    ]
    return {kind: np.array([score[kind] for score in scores]) for kind in ROUGE_TYPES}


class _Tokenizer:
    """The shape rouge_score expects of a tokenizer."""

    def __init__(self, stem_word: Callable[[str], str] | None) -> None:
        self._stem_word = stem_word

    def tokenize(self, text: str) -> list[str]:
        tokens = text_tokens(text)
        if self._stem_word is None:
            return tokens
        return [self._stem_word(token) if token.isascii() else token for token in tokens]


@functools.cache
def _scorer(stem: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    porter = DefaultTokenizer(use_stemmer=True)

    def stem_word(word: str) -> str:
        return "".join(porter.tokenize(word)) or word

    return RougeScorer(list(ROUGE_TYPES), tokenizer=_Tokenizer(stem_word if stem else None))
