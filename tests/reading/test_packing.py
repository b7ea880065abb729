"""Packed rows: what is in them, and which token sees which."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rag.reading.packing import Prompt, Row, pack, to_tensors

CPU = torch.device("cpu")


def test_questions_about_the_same_passages_share_a_row() -> None:
    prompts = [Prompt((1, 2), (10,)), Prompt((3,), (20, 21)), Prompt((1, 2), (11, 12))]
    rows = pack(prompts, [(7, 8), (), (9,)], max_tokens=100)
    assert sorted(rows, key=lambda row: row.members) == [
        Row((1, 2), ((10, 7, 8), (11, 12, 9)), (0, 2)),
        Row((3,), ((20, 21),), (1,)),
    ]
    assert rows[0].length == 8
    assert rows[0].starts() == [2, 5]


def test_a_full_row_is_closed_and_the_passages_begin_another() -> None:
    prompts = [Prompt((1, 2), (i, i)) for i in range(5)]
    rows = pack(prompts, [(0,)] * 5, max_tokens=8)
    assert [row.members for row in rows] == [(0, 1), (2, 3), (4,)]
    assert {row.length for row in rows[:2]} == {8}


def test_a_question_that_is_too_long_alone_gets_a_row_of_its_own() -> None:
    prompts = [Prompt((1,), (2,) * 9), Prompt((1,), (3,)), Prompt((1,), (4,))]
    rows = pack(prompts, [()] * 3, max_tokens=4)
    assert [row.members for row in rows] == [(0,), (1, 2)]
    assert rows[0].length == 10


TOKENS = st.lists(st.integers(5, 9), max_size=4).map(tuple)
SHARED = st.sampled_from([(), (1,), (1, 2), (1, 2, 3, 4)])
ITEMS = st.lists(st.tuples(SHARED, st.tuples(st.integers(5, 9)), TOKENS), max_size=30)


@given(ITEMS, st.integers(1, 20))
def test_every_question_is_packed_once_in_order_within_its_passages(
    items: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]], max_tokens: int
) -> None:
    prompts = [Prompt(shared, own) for shared, own, _ in items]
    answers = [answer for _, _, answer in items]
    rows = pack(prompts, answers, max_tokens)
    assert sorted(member for row in rows for member in row.members) == list(range(len(items)))
    for row in rows:
        assert row.length <= max_tokens or len(row.members) == 1
        for member, segment in zip(row.members, row.segments, strict=True):
            assert row.shared == prompts[member].shared
            assert segment == (*prompts[member].own, *answers[member])
    for shared in {prompt.shared for prompt in prompts}:
        together = [member for row in rows if row.shared == shared for member in row.members]
        assert together == sorted(together)


def test_attention_by_hand() -> None:
    """Shared s, segments a and b of two tokens each, padding p."""
    packed = to_tensors([Row((4,), ((5, 6), (7, 8)), (0, 1))], 0, CPU)
    width = packed.ids.shape[1]
    assert packed.ids[0, :6].tolist() == [4, 5, 6, 7, 8, 0]
    assert packed.positions[0, :6].tolist() == [0, 1, 2, 1, 2, 0]
    assert packed.owners[0, :6].tolist() == [0, 1, 1, 2, 2, -1]
    assert packed.attention.shape == (1, 1, width, width)
    #    s  a1 a2 b1 b2 p
    assert packed.attention[0, 0, :6, :6].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 1],
    ]


def test_rows_of_different_length_are_padded_on_the_right() -> None:
    packed = to_tensors([Row((), ((5,),), (0,)), Row((4, 4), ((5, 6),), (1,))], 9, CPU)
    assert packed.ids[0, :4].tolist() == [5, 9, 9, 9]
    assert packed.ids[1, :4].tolist() == [4, 4, 5, 6]
    assert packed.positions[:, :4].tolist() == [[0, 0, 0, 0], [0, 1, 2, 3]]
    assert bool((packed.ids[:, 4:] == 9).all())
    assert not bool(packed.attention[0, 0, 0, 1:].any())


def test_a_new_token_sees_the_passages_and_its_own_question() -> None:
    packed = to_tensors([Row((4,), ((5, 6), (7,)), (0, 1))], 0, CPU)
    seen = packed.sees(torch.tensor([[2, 1, -2]]))[0, :, :5].int().tolist()
    assert seen == [[1, 0, 0, 1, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
