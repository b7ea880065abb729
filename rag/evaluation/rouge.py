"""ROUGE-1, ROUGE-2 and ROUGE-L over tokens of any script, as rouge_score computes them.

rouge_score's own tokenizer keeps only a-z and 0-9, so a right Chinese or Korean answer scores 0;
here the tokens are those of `normalize.text_tokens`, which agrees with it on ASCII. Scores are
F-measures, 0 to 1, the best over the accepted answers for each type (Lin, 2004). ROUGE-2 of
one-token texts is 0. The counting is `token_counts`, for thousands of examples at once; tests hold
it to rouge_score, whose Porter stemmer is used with `stem`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.normalize import text_tokens
from rag.evaluation.token_counts import (
    IntVector,
    Pairs,
    TextTable,
    blocks_of_pairs,
    clipped_matches,
    common_order,
)

FloatVector = npt.NDArray[np.float64]
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


def rouge(prediction: str, answers: Sequence[str], *, stem: bool = False) -> dict[str, float]:
    """`{"rouge1", "rouge2", "rougeL"}` of one answer; nothing against nothing is 1."""
    scores = rouge_scores([prediction], [answers], stem=stem)
    return {kind: float(each[0]) for kind, each in scores.items()}


def rouge_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, stem: bool = False
) -> dict[str, FloatVector]:
    """ROUGE of each example, one vector (N,) a type."""
    if len(predictions) != len(references):
        raise MetricError(
            f"rouge: {len(predictions)} predictions but {len(references)} lists of references"
        )
    scores = np.empty((len(ROUGE_TYPES), len(predictions)))
    tokenize = _stemmed_tokens if stem else text_tokens
    for pairs in blocks_of_pairs(predictions, references):
        scores[:, pairs.rows] = _scores_of_block(pairs, tokenize)
    return dict(zip(ROUGE_TYPES, scores, strict=True))


def _scores_of_block(pairs: Pairs, tokenize: Callable[[str], list[str]]) -> list[FloatVector]:
    """The best F-measures of a block, (B,) for each of ROUGE_TYPES."""
    table = TextTable(tokenize)
    predicted = table.add(pairs.predictions)[pairs.owner]  # (P,)
    accepted = table.add(pairs.answers)  # (P,)
    tokens = table.sequences()
    ours, theirs = tokens.take(predicted), tokens.take(accepted)
    common = clipped_matches(ours, theirs)
    in_order = np.where(predicted == accepted, common, 0)
    differ = np.flatnonzero(predicted != accepted)
    in_order[differ] = common_order(ours.take(differ), theirs.take(differ), common[differ])
    bigrams = tokens.extended(tokens)
    pairs_of_ours, pairs_of_theirs = bigrams.take(predicted), bigrams.take(accepted)
    found = [
        _f_measure(common, ours.lengths, theirs.lengths),
        _f_measure(
            clipped_matches(pairs_of_ours, pairs_of_theirs),
            pairs_of_ours.lengths,
            pairs_of_theirs.lengths,
        ),
        _f_measure(in_order, ours.lengths, theirs.lengths),
    ]
    nothing = (ours.lengths == 0) & (theirs.lengths == 0)
    return [pairs.best(np.where(nothing, 1.0, scores)) for scores in found]


def _f_measure(matched: IntVector, predicted: IntVector, accepted: IntVector) -> FloatVector:
    """2 P R / (P + R), 0 where nothing matches."""
    precision = matched / np.maximum(predicted, 1)
    recall = matched / np.maximum(accepted, 1)
    total = precision + recall
    return 2.0 * precision * recall / np.where(total > 0.0, total, 1.0)


def _stemmed_tokens(text: str) -> list[str]:
    return [_stemmed(token) if token.isascii() else token for token in text_tokens(text)]


@functools.lru_cache(maxsize=2**16)
def _stemmed(word: str) -> str:
    return "".join(_porter().tokenize(word)) or word


@functools.cache
def _porter() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)
