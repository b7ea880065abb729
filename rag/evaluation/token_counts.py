"""Texts as arrays of token ids, and what two texts have in common, counted for many at once.

Every metric of answers compares bags of tokens, bags of n-grams, or orders of tokens. Here N texts
are one flat array of ids and their lengths, so that a million short texts cost a few arrays and
counting is sorting. Counts are exact: an n-gram is a number of its own, never a hash.

    >>> texts = TextTable(str.split)
    >>> rows = texts.add(["a b a", "a a c"])
    >>> first, second = (texts.sequences().take(rows[[row]]) for row in (0, 1))
    >>> clipped_matches(first, second).tolist()
    [2]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress

import numpy as np
import numpy.typing as npt

IntVector = npt.NDArray[np.int64]

#: Examples that are counted together: large enough for numpy, small enough for memory.
BLOCK = 8192


@dataclass(frozen=True)
class Sequences:
    """N sequences of ids: all of them in a row in `values` (T,), and their `lengths` (N,)."""

    values: IntVector
    lengths: IntVector

    @property
    def owners(self) -> IntVector:
        """The sequence that each value belongs to, (T,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def starts(self) -> IntVector:
        """Where each sequence begins in `values`, (N,)."""
        return np.cumsum(self.lengths) - self.lengths

    def take(self, rows: IntVector) -> Sequences:
        """The sequences of these rows, in their order; a row may be taken more than once."""
        lengths = self.lengths[rows]
        first = np.repeat(self.starts[rows] - (np.cumsum(lengths) - lengths), lengths)
        return Sequences(self.values[first + np.arange(len(first))], lengths)

    def extended(self, tokens: Sequences) -> Sequences:
        """From n-grams to (n+1)-grams: each is joined with the token that follows it.

        `tokens` holds the unigrams of the same texts. Equal n-grams get equal ids, of any text.
        """
        order = 1 + int((tokens.lengths - self.lengths).max(initial=0))
        lengths = np.maximum(tokens.lengths - order, 0)
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        head = self.values[np.repeat(self.starts, lengths) + inside]
        tail = tokens.values[np.repeat(tokens.starts, lengths) + inside + order]
        width = int(tokens.values.max(initial=0)) + 1
        _, joined = np.unique(head * width + tail, return_inverse=True)
        return Sequences(joined.astype(np.int64, copy=False), lengths)


class TextTable:
    """Gives different texts a row each, tokenised once; texts with equal tokens share a row."""

    def __init__(self, tokenize: Callable[[str], Sequence[str]]) -> None:
        self._tokenize = tokenize
        self._row_of_text: dict[str, int] = {}
        self._row_of_tokens: dict[tuple[str, ...], int] = {}

    def add(self, texts: Iterable[str]) -> IntVector:
        """The row of each text, (N,); equal rows mean equal tokens."""
        known, rows = self._row_of_text, self._row_of_tokens
        found = []
        for text in texts:
            row = known.get(text)
            if row is None:
                row = known[text] = rows.setdefault(tuple(self._tokenize(text)), len(rows))
            found.append(row)
        return np.array(found, dtype=np.int64)

    def sequences(self) -> Sequences:
        """The token ids of every row so far."""
        ids: defaultdict[str, int] = defaultdict()
        ids.default_factory = ids.__len__
        values = list(map(ids.__getitem__, chain.from_iterable(self._row_of_tokens)))
        lengths = list(map(len, self._row_of_tokens))
        return Sequences(np.array(values, dtype=np.int64), np.array(lengths, dtype=np.int64))


@dataclass(frozen=True)
class Pairs:
    """A block of predictions, each beside its accepted answers, flattened to P pairs.

    `rows` is the slice of the examples; `owner` (P,), ascending, names the prediction of each pair,
    counted from the start of the block; `first` (B,) is where the pairs of each prediction begin.
    """

    rows: slice
    predictions: Sequence[str]
    answers: Sequence[str]
    owner: IntVector
    first: IntVector

    def of(self, chosen: npt.NDArray[np.bool_]) -> Pairs:
        """Only the predictions for which `chosen` (B,) holds, with their pairs."""
        if chosen.all():
            return self
        sizes = np.bincount(self.owner, minlength=len(chosen))[chosen]
        return Pairs(
            rows=self.rows,
            predictions=list(compress(self.predictions, chosen)),
            answers=list(compress(self.answers, chosen[self.owner])),
            owner=np.repeat(np.arange(len(sizes)), sizes),
            first=np.cumsum(sizes) - sizes,
        )

    def best(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The highest score of each prediction: (P,) -> (B,)."""
        return np.maximum.reduceat(scores, self.first)


def blocks_of_pairs(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Iterator[Pairs]:
    """Predictions with their accepted answers, BLOCK at a time; no answer counts as one of ""."""
    for start in range(0, len(predictions), BLOCK):
        rows = slice(start, min(start + BLOCK, len(predictions)))
        accepted = [answers or ("",) for answers in references[rows]]
        sizes = np.array([len(answers) for answers in accepted], dtype=np.int64)
        yield Pairs(
            rows=rows,
            predictions=predictions[rows],
            answers=[answer for answers in accepted for answer in answers],
            owner=np.repeat(np.arange(len(sizes)), sizes),
            first=np.cumsum(sizes) - sizes,
        )


def clipped_matches(
    predicted: Sequences, references: Sequences, owner: IntVector | None = None
) -> IntVector:
    """How many ids of each predicted sequence are matched, each as often as a reference has it.

    `owner` names the prediction of each reference, in ascending order; one each when None. Of
    several references, the one that has an id most often counts for that id (Papineni et al.,
    2002). Returns (N,) for N predictions.
    """
    width = 1 + int(max(predicted.values.max(initial=0), references.values.max(initial=0)))
    keys, times = np.unique(predicted.owners * width + predicted.values, return_counts=True)
    accepted, allowed = np.unique(references.owners * width + references.values, return_counts=True)
    if owner is not None:
        accepted = owner[accepted // width] * width + accepted % width
        order = np.lexsort((-allowed, accepted))
        accepted, first = np.unique(accepted[order], return_index=True)
        allowed = allowed[order][first]
    _, ours, theirs = np.intersect1d(keys, accepted, assume_unique=True, return_indices=True)
    matched = np.minimum(times[ours], allowed[theirs])
    counts = np.bincount(keys[ours] // width, weights=matched, minlength=len(predicted.lengths))
    return counts.astype(np.int64)


def longest_common_subsequence(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common subsequence, a row of the table at a time in one integer.

    Bit i of `row` is 0 where the table grows at `first[i]` (Hyyrö, Bit-Parallel LCS-length
    Computation Revisited, 2004): len(second) steps in place of len(first) * len(second).
    """
    places: dict[int, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    everywhere = row = (1 << len(first)) - 1
    for token in second:
        matched = row & places.get(token, 0)
        if matched:
            row = (row + matched | row - matched) & everywhere
    return len(first) - row.bit_count()


def common_order(first: Sequences, second: Sequences, common: IntVector) -> IntVector:
    """Length of the longest common subsequence of each pair, (P,), given their common tokens."""
    lengths = common.copy()
    undecided = np.flatnonzero(common > 1)  # a lone token in common is in order
    values, others = first.take(undecided), second.take(undecided)
    here, there = values.values.tolist(), others.values.tolist()
    bounds = zip(
        values.starts.tolist(),
        values.lengths.tolist(),
        others.starts.tolist(),
        others.lengths.tolist(),
        strict=True,
    )
    lengths[undecided] = [
        longest_common_subsequence(here[start : start + size], there[begin : begin + width])
        for start, size, begin, width in bounds
    ]
    return lengths
