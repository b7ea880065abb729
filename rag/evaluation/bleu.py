"""Corpus BLEU by sacrebleu, for any script, with what is needed to resample it.

sacrebleu's tokenizers cut the texts; matches and totals of 1- to 4-grams and the lengths are
counted here, of each example alone but thousands of examples at once. `bleu_of` turns sums of these
counts into BLEU for as many resamples, and agrees with `sacrebleu.corpus_bleu` on the whole.

The tokenizer is chosen for each example by the script of its accepted answers: `zh` where they
have Chinese characters, `char` where they have kana, Hangul or a script without spaces (sacrebleu's
own Japanese and Korean tokenizers need MeCab), `13a` elsewhere. Under the default `13a` a right
Chinese answer scores 0. Effective order is on: a corpus whose answers are all shorter than four
tokens is scored by the orders it has, again in place of 0; all other corpora score the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError
from rag.evaluation.normalize import BY_CHARACTER, HAN
from rag.evaluation.token_counts import Pairs, TextTable, blocks_of_pairs, clipped_matches

FloatMatrix = npt.NDArray[np.float64]
MAX_ORDER = 4
#: Prediction length, closest reference length, then matches and totals of each order.
STATISTICS = 2 + 2 * MAX_ORDER

_HAN = re.compile(f"[{HAN}]")
_BY_CHARACTER = re.compile(f"[{BY_CHARACTER}]")
_PLAIN = re.compile(r"[0-9A-Za-z\s]*", re.ASCII)


def bleu_tokenizer(references: Sequence[str]) -> str:
    """The sacrebleu tokenizer for these accepted answers: `13a`, `zh` or `char`."""
    text = " ".join(references)
    if text.isascii():
        return "13a"
    if _BY_CHARACTER.search(_HAN.sub("", text)):
        return "char"
    return "zh" if _HAN.search(text) else "13a"


def bleu_signature(references: Sequence[Sequence[str]]) -> str:
    """What to quote beside the number: tokenizers, smoothing and the version of sacrebleu."""
    tokenizers = "+".join(sorted({bleu_tokenizer(accepted) for accepted in references}))
    return f"case:mixed|eff:yes|tok:{tokenizers}|smooth:exp|version:{version('sacrebleu')}"


def bleu_statistics(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatMatrix:
    """Counts of each example, (N, STATISTICS); their column sums determine corpus BLEU."""
    if len(predictions) != len(references):
        raise MetricError(
            f"bleu: {len(predictions)} predictions but {len(references)} lists of references"
        )
    for row, accepted in enumerate(references):
        if not accepted:
            raise MetricError(f"bleu: example {row} has no reference; BLEU needs at least one")
    counts = np.empty((len(predictions), STATISTICS))
    for pairs in blocks_of_pairs(predictions, references):
        names = [bleu_tokenizer(accepted) for accepted in references[pairs.rows]]
        for name in set(names):
            chosen = np.array([each == name for each in names])
            counts[pairs.rows][chosen] = _counts_of_block(pairs.of(chosen), _tokenizer(name))
    return counts


def _counts_of_block(pairs: Pairs, tokenize: Callable[[str], list[str]]) -> FloatMatrix:
    """Counts of a block of one tokenizer, (B, STATISTICS)."""
    table = TextTable(tokenize)
    predicted, accepted = table.add(pairs.predictions), table.add(pairs.answers)  # (B,), (P,)
    tokens = table.sequences()
    sizes, reference_sizes = tokens.lengths[predicted], tokens.lengths[accepted]
    counts = np.empty((len(predicted), STATISTICS))
    counts[:, 0] = sizes
    # The closest reference length; of two that are as close, the shorter.
    distance = np.abs(reference_sizes - sizes[pairs.owner])
    nearest = np.lexsort((reference_sizes, distance, pairs.owner))[pairs.first]
    counts[:, 1] = reference_sizes[nearest]
    several = pairs.owner if len(accepted) > len(predicted) else None
    ngrams = tokens
    for order in range(MAX_ORDER):
        if order:
            ngrams = ngrams.extended(tokens)
        ours = ngrams.take(predicted)
        counts[:, 2 + order] = clipped_matches(ours, ngrams.take(accepted), several)
        counts[:, 2 + MAX_ORDER + order] = ours.lengths
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
def _tokenizer(name: str) -> Callable[[str], list[str]]:
    """sacrebleu's tokenizer of this name as sacrebleu calls it, without its detour for plain text.

    Between letters, digits and spaces of ASCII, `13a` and `zh` have nothing to separate.
    """
    from sacrebleu.metrics.bleu import BLEU

    separate = BLEU(tokenize=name).tokenizer
    plain = None if name == "char" else _PLAIN.fullmatch

    def tokens(text: str) -> list[str]:
        if plain is not None and plain(text):
            return text.split()
        separated: str = separate(text.rstrip())
        return separated.split()

    return tokens
