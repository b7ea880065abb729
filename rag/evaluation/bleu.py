"""Corpus BLEU by sacrebleu, for any script, with what is needed to resample it.

sacrebleu counts each example alone (matches and totals of 1- to 4-grams, lengths); `bleu_of` turns
sums of these counts into BLEU for thousands of resamples at once, and agrees with
`sacrebleu.corpus_bleu` on the whole.

The tokenizer is chosen for each example by the script of its accepted answers: `zh` where they
have Chinese characters, `char` where they have kana, Hangul or a script without spaces (sacrebleu's
own Japanese and Korean tokenizers need MeCab), `13a` elsewhere. Under the default `13a` a right
Chinese answer scores 0. Effective order is on: a corpus whose answers are all shorter than four
tokens is scored by the orders it has, again in place of 0; all other corpora score the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.normalize import BY_CHARACTER, HAN

FloatMatrix = npt.NDArray[np.float64]
MAX_ORDER = 4
#: Prediction length, closest reference length, then matches and totals of each order.
STATISTICS = 2 + 2 * MAX_ORDER

_HAN = re.compile(f"[{HAN}]")
_BY_CHARACTER = re.compile(f"[{BY_CHARACTER}]")


def bleu_tokenizer(references: Sequence[str]) -> str:
    """The sacrebleu tokenizer for these accepted answers: `13a`, `zh` or `char`."""
    text = " ".join(references)
    if _BY_CHARACTER.search(_HAN.sub("", text)):
        return "char"
    return "zh" if _HAN.search(text) else "13a"


def bleu_signature(references: Sequence[Sequence[str]]) -> str:
    """What to quote beside the number: tokenizers, smoothing and the version of sacrebleu."""
    import sacrebleu

    tokenizers = "+".join(sorted({bleu_tokenizer(accepted) for accepted in references}))
    return f"case:mixed|eff:yes|tok:{tokenizers}|smooth:exp|version:{sacrebleu.__version__}"


def bleu_statistics(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatMatrix:
    """Counts of each example, (N, STATISTICS); their column sums determine corpus BLEU."""
    if len(predictions) != len(references):
        raise MetricError(
            f"bleu: {len(predictions)} predictions but {len(references)} lists of references"
        )
    counts = np.zeros((len(predictions), STATISTICS))
    for row, (prediction, accepted) in enumerate(zip(predictions, references, strict=True)):
        if not accepted:
            raise MetricError(f"bleu: example {row} has no reference; BLEU needs at least one")
        scorer = _scorer(bleu_tokenizer(accepted))
        # One stream a reference: sacrebleu nests references by stream, then by example.
        score = scorer.corpus_score([prediction], [[reference] for reference in accepted])
        counts[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return counts


def bleu_of(sums: FloatMatrix) -> npt.NDArray[np.float64]:
    """BLEU in percent for each row of summed counts: (R, STATISTICS) -> (R,)."""
    predicted, reference = sums[:, 0], sums[:, 1]
    matches, totals = sums[:, 2 : 2 + MAX_ORDER], sums[:, 2 + MAX_ORDER :]  # (R, 4) each
    present = totals > 0
    unmatched = present & (matches == 0)
    # Exponential smoothing: the k-th order without a match counts as 1 / 2^k matches.
    smoothed = np.where(unmatched, 0.5 ** np.cumsum(unmatched, axis=1), matches)
    precisions = np.where(present, smoothed / np.where(present, totals, 1.0), 1.0)
    orders = np.maximum(present.sum(axis=1), 1)
    geometric_mean = np.exp(np.log(precisions).sum(axis=1) / orders)
    shortfall = reference / np.where(predicted > 0, predicted, 1.0) - 1.0
    brevity = np.where(predicted > 0, np.exp(-np.maximum(shortfall, 0.0)), 0.0)
    score = np.where(matches.any(axis=1), 100.0 * brevity * geometric_mean, 0.0)
    return np.where((predicted == 0) & (reference == 0), 100.0, score)


def corpus_bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU of the whole in percent; each example may have any number of references."""
    if not predictions:
        raise MetricError("bleu: there is no example to score")
    sums = bleu_statistics(predictions, references).sum(axis=0, keepdims=True)
    return float(bleu_of(sums)[0])


@functools.cache
def _scorer(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=True, force=True)
