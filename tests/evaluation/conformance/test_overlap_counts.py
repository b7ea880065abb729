"""Counting in arrays against counting one by one, on any sequences."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.evaluation.normalize import answer_tokens, text_tokens
from rag.evaluation.token_counts import (
    Sequences,
    TextTable,
    clipped_matches,
    common_order,
    longest_common_subsequence,
)

#: Of each property; enough to find what was broken on purpose, few enough to be quick.
EXAMPLES = 40

SEQUENCE = st.lists(st.integers(0, 4), max_size=12)
PAIRS = st.lists(st.tuples(SEQUENCE, SEQUENCE), min_size=1, max_size=6)
ASCII = st.text(st.characters(max_codepoint=127), max_size=30)


def sequences(rows: list[list[int]]) -> Sequences:
    values = [value for row in rows for value in row]
    return Sequences(np.array(values, dtype=np.int64), np.array([len(row) for row in rows]))


def lcs_by_table(first: list[int], second: list[int]) -> int:
    """The textbook recursion."""

    @cache
    def length(i: int, j: int) -> int:
        if not i or not j:
            return 0
        if first[i - 1] == second[j - 1]:
            return length(i - 1, j - 1) + 1
        return max(length(i - 1, j), length(i, j - 1))

    return length(len(first), len(second))


@settings(max_examples=EXAMPLES)
@given(PAIRS)
def test_matches_are_those_of_counters(pairs: list[tuple[list[int], list[int]]]) -> None:
    ours, theirs = (sequences([pair[side] for pair in pairs]) for side in (0, 1))
    expected = [(Counter(first) & Counter(second)).total() for first, second in pairs]
    assert clipped_matches(ours, theirs).tolist() == expected


@settings(max_examples=EXAMPLES)
@given(st.lists(st.tuples(SEQUENCE, st.lists(SEQUENCE, min_size=1, max_size=3)), min_size=1))
def test_of_several_references_each_token_takes_its_best(
    examples: list[tuple[list[int], list[list[int]]]],
) -> None:
    owner = np.repeat(np.arange(len(examples)), [len(each) for _, each in examples])
    references = sequences([reference for _, each in examples for reference in each])
    expected = []
    for predicted, each in examples:
        allowed: Counter[int] = Counter()
        for reference in each:
            allowed |= Counter(reference)
        expected.append((Counter(predicted) & allowed).total())
    predictions = sequences([predicted for predicted, _ in examples])
    assert clipped_matches(predictions, references, owner).tolist() == expected


@settings(max_examples=EXAMPLES)
@given(PAIRS)
def test_common_order_is_the_longest_common_subsequence(
    pairs: list[tuple[list[int], list[int]]],
) -> None:
    ours, theirs = (sequences([pair[side] for pair in pairs]) for side in (0, 1))
    expected = [lcs_by_table(first, second) for first, second in pairs]
    assert [longest_common_subsequence(*pair) for pair in pairs] == expected
    assert common_order(ours, theirs, clipped_matches(ours, theirs)).tolist() == expected


def test_a_subsequence_longer_than_a_machine_word() -> None:
    first = list(range(300))
    assert longest_common_subsequence(first, first[::2]) == 150
    assert longest_common_subsequence(first, first[::-1]) == 1
    assert longest_common_subsequence([], first) == longest_common_subsequence(first, []) == 0


@settings(max_examples=EXAMPLES)
@given(st.lists(SEQUENCE, min_size=1, max_size=6))
def test_ngrams_are_equal_exactly_when_their_tokens_are(rows: list[list[int]]) -> None:
    tokens = sequences(rows)
    ngrams = tokens
    for order in (2, 3, 4):
        ngrams = ngrams.extended(tokens)
        expected = [
            tuple(row[start : start + order])
            for row in rows
            for start in range(len(row) - order + 1)
        ]
        assert ngrams.lengths.tolist() == [max(len(row) - order + 1, 0) for row in rows]
        named = dict(zip(ngrams.values.tolist(), expected, strict=True))
        assert [named[value] for value in ngrams.values.tolist()] == expected
        assert len(named) == len(set(expected))


@settings(max_examples=EXAMPLES)
@given(st.lists(SEQUENCE, min_size=1, max_size=5), st.data())
def test_rows_are_taken_in_any_order(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    taken = sequences(rows).take(np.array(chosen, dtype=np.int64))
    parts = np.split(taken.values, np.cumsum(taken.lengths)[:-1]) if chosen else []
    assert [part.tolist() for part in parts] == [rows[row] for row in chosen]


def test_texts_of_equal_tokens_share_a_row() -> None:
    table = TextTable(answer_tokens)
    assert table.add(["The Sea Eagle", "sea eagle!", "", "eagle"]).tolist() == [0, 0, 1, 2]
    assert table.add(["“Sea” eagle", "new"]).tolist() == [0, 3]
    assert table.sequences().lengths.tolist() == [2, 0, 1, 1]


@settings(max_examples=EXAMPLES)
@given(ASCII)
def test_ascii_has_the_tokens_of_the_rules_for_every_script(text: str) -> None:
    """A word with an accent takes the general way, with the same text in front of it."""
    assert text_tokens(f"{text} é") == [*(text_tokens(text) if _has_word(text) else []), "é"]
    if set(text_tokens(text)) - {"a", "an", "the"} and _has_word(text):
        assert answer_tokens(f"{text} é") == [*answer_tokens(text), "é"]


def _has_word(text: str) -> bool:
    return any(letter.isalnum() for letter in text)
