"""Pairs of documents that say nearly the same: exact Jaccard similarity of their word 5-grams.

Grams are hashed to 64 bits, and only documents that share one of their rarest grams are compared:
two sets of similarity t share an element among the `n - ceil(t n) + 1` rarest of each (prefix
filtering, Chaudhuri, Ganti and Kaushik 2006), so no pair is missed, and ten thousand documents
take seconds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from rag.corpus.text import words

GRAM_WORDS = 5
Item = TypeVar("Item", int, str)
Grams = npt.NDArray[np.uint64]


class DisjointSets(Generic[Item]):
    """Items joined into sets; each set goes by its smallest member, whatever the order of joins."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._parent: dict[Item, Item] = {item: item for item in items}

    def find(self, item: Item) -> Item:
        root = item
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[item] != root:
            self._parent[item], item = root, self._parent[item]
        return root

    def join(self, left: Item, right: Item) -> None:
        low, high = sorted((self.find(left), self.find(right)))
        self._parent[high] = low


def near_duplicates(texts: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    """Index pairs (low, high) that link every set of near-duplicates; not all pairs of each set.

    Two texts are near-duplicates where the Jaccard similarity of their word 5-grams exceeds
    `threshold`, or where their grams are the same. A text under five words is one gram.
    """
    grams = _hashed_grams(texts)
    sets = DisjointSets(range(len(texts)))
    pairs: list[tuple[int, int]] = []

    def link(left: int, right: int) -> None:
        sets.join(left, right)
        pairs.append((min(left, right), max(left, right)))

    first_with: dict[bytes, int] = {}
    for index, own in enumerate(grams):
        if own.size:
            first = first_with.setdefault(own.tobytes(), index)
            if first != index:
                link(first, index)
    distinct = sorted(first_with.values())
    for sharing in _sharing_rare_grams([grams[index] for index in distinct], threshold):
        # members of one set are skipped together, so a boilerplate gram costs little
        members: dict[int, list[int]] = {}
        for index in (distinct[position] for position in sharing):
            for root in list(members):
                if sets.find(root) == sets.find(index):
                    continue
                for other in members[root]:
                    if _jaccard(grams[index], grams[other]) > threshold:
                        link(other, index)
                        break
            members.setdefault(sets.find(index), []).append(index)
    return pairs


def _hashed_grams(texts: Sequence[str]) -> list[Grams]:
    vocabulary: dict[str, int] = {}
    codes = [
        np.array([vocabulary.setdefault(w, len(vocabulary)) for w in words(t.casefold())], np.int64)
        for t in texts
    ]
    hashes = np.array(
        [
            int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
            for word in vocabulary
        ],
        np.uint64,
    )
    return [_grams(hashes[code]) for code in codes]


def _grams(word_hashes: Grams) -> Grams:
    """Sorted, distinct hashes of the 5-grams: (n words) -> (at most n - 4)."""
    size = min(GRAM_WORDS, len(word_hashes))
    if not size:
        return word_hashes
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    count = len(word_hashes) - size + 1
    combined = np.zeros(count, np.uint64)
    for offset in range(size):  # unsigned arithmetic wraps around, as a rolling hash wants
        combined = (combined ^ word_hashes[offset : offset + count]) * multiplier
        combined ^= combined >> np.uint64(29)
    return np.unique(combined)


def _sharing_rare_grams(grams: Sequence[Grams], threshold: float) -> list[list[int]]:
    """Lists of positions that have a gram in common among their rarest."""
    if not grams:
        return []
    everything, counts = np.unique(np.concatenate(grams), return_counts=True)
    kept: list[Grams] = []
    for own in grams:
        rarity = counts[np.searchsorted(everything, own)]
        prefix = len(own) - math.ceil(threshold * len(own) - 1e-9) + 1
        kept.append(own[np.lexsort((own, rarity))[:prefix]])
    flat = np.concatenate(kept)
    owners = np.repeat(np.arange(len(kept)), [len(item) for item in kept])
    order = np.argsort(flat, kind="stable")
    flat, owners = flat[order], owners[order]
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    ends = np.append(starts[1:], len(flat))
    shared = (ends - starts) > 1
    return [owners[a:b].tolist() for a, b in zip(starts[shared], ends[shared], strict=True)]


def _jaccard(left: Grams, right: Grams) -> float:
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)
