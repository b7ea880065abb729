"""Batches of similar length: every example once, little padding, another order each epoch."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rag.finetune.trainable import halved, length_buckets

LENGTHS = st.lists(st.integers(1, 50), max_size=200)


@given(LENGTHS, st.integers(1, 120), st.integers(0, 9))
def test_buckets_hold_every_example_once_within_the_budget(
    lengths: list[int], batch_tokens: int, seed: int
) -> None:
    batches = length_buckets(lengths, batch_tokens, seed)
    assert Counter(i for batch in batches for i in batch) == Counter(range(len(lengths)))
    assert all(
        max(lengths[i] for i in batch) * len(batch) <= batch_tokens or len(batch) == 1
        for batch in batches
    )
    assert length_buckets(lengths, batch_tokens, seed) == batches


def test_buckets_pad_little_and_differ_by_seed() -> None:
    lengths = [10 * (1 + i % 5) for i in range(120)]
    first, second = (length_buckets(lengths, 200, seed) for seed in (1, 2))
    assert first != second
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in first)
    assert padded < 1.15 * sum(lengths)
    longest = [max(lengths[i] for i in batch) for batch in first]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_halves_are_the_batch_in_two_parts() -> None:
    assert list(halved([5, 3, 8])) == [[5, 3], [8]]
    assert list(halved([5, 3])) == [[5], [3]]
    assert not halved([5])
