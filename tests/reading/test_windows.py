"""Passages as tokens: places of answers, and windows of long passages, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rag.errors import ModelError
from rag.params import ReaderParams
from rag.reading.extractive import ExtractiveReader
from rag.reading.windows import Reading, WindowReader, token_spans

MakeReader = Callable[..., ExtractiveReader]
QUESTION = "who sails?"
TEXT = "the red boat sails. the blue boat rests"
#        1   2    3     4  5  6   7     8     9   are the places; 0 is the null answer
LONG = " ".join(["the red boat sails north"] * 24 + ["captain marlow rests"] + ["at noon"] * 9)


@pytest.fixture
def reader(extractive: MakeReader) -> ExtractiveReader:
    return extractive()


def read(reader: ExtractiveReader, text: str, question: str = QUESTION) -> Reading:
    return reader.read([question], [text])[0]


# places


def test_places_are_the_tokens_of_the_passage(reader: ExtractiveReader) -> None:
    reading = read(reader, TEXT)
    # [CLS] who sails ? [SEP] comes first, [SEP] last.
    assert reading.tokens.tolist() == [[0, t] for t in range(5, 14)]
    [window] = reading.windows
    assert window.types == [0] * 5 + [1] * 10
    assert [reading.between(*span) for span in ((2, 3), (4, 5), (1, 9), (0, 0))] == [
        "red boat",
        "sails.",
        TEXT,
        "",
    ]


def test_spans_of_every_place(reader: ExtractiveReader) -> None:
    reading = read(reader, TEXT)
    assert token_spans(reading, ["boat"], 24) == [(3, 3), (8, 8)]
    assert token_spans(reading, ["red boat", "boat rests"], 24) == [(2, 3), (8, 9)]
    assert token_spans(reading, ["boat", "the red boat", "boat"], 24) == [(1, 3), (3, 3), (8, 8)]
    assert token_spans(reading, [""], 24) == [(0, 0)]
    assert token_spans(reading, ["marlow"], 24) == []
    assert token_spans(reading, ["who"], 24) == []  # it stands in the question only


def test_case_and_spacing_make_no_other_answer(reader: ExtractiveReader) -> None:
    reading = read(reader, "Red  Boat. red boat")
    assert token_spans(reading, ["red boat"], 24) == [(1, 2), (4, 5)]


def test_a_span_that_is_too_long_to_be_given_is_none(reader: ExtractiveReader) -> None:
    assert token_spans(read(reader, TEXT), ["red boat sails", "blue boat"], 2) == [(7, 8)]


def test_places_that_overlap_are_all_found(reader: ExtractiveReader) -> None:
    reading = read(reader, "boat boat boat")
    assert token_spans(reading, ["boat boat"], 24) == [(1, 2), (2, 3)]


def test_an_answer_within_a_token_has_that_token_only_where_it_has_no_own(
    reader: ExtractiveReader,
) -> None:
    # "the" stands in "there", which is one unknown word.
    assert token_spans(read(reader, "there the boat"), ["the"], 24) == [(2, 2)]
    assert token_spans(read(reader, "there is a boat"), ["the"], 24) == [(1, 1)]


def test_a_span_of_word_pieces_has_all_of_them(reader: ExtractiveReader) -> None:
    reading = read(reader, "seagulls sails southward")
    assert token_spans(reading, ["seagulls"], 24) == [(1, 3)]
    assert reading.between(1, 3) == "seagulls"


def test_spans_by_character_in_chinese(reader: ExtractiveReader) -> None:
    reading = read(reader, "北京港 北京")
    assert token_spans(reading, ["北京"], 24) == [(1, 2), (4, 5)]
    assert token_spans(reading, ["京港"], 24) == [(2, 3)]
    assert reading.between(1, 3) == "北京港"
    assert reading.between(3, 4) == "港 北"


# windows


def test_windows_share_their_stride_and_divide_it_in_the_middle(extractive: MakeReader) -> None:
    """64 tokens less [CLS] who sails ? [SEP] and [SEP] leave 58 for the passage, 9 shared."""
    reader = extractive("reader.max_prompt_tokens=64")
    reading = read(reader, LONG)
    plain = reader.tokenizer(LONG, add_special_tokens=False, return_offsets_mapping=True)
    assert len(plain.input_ids) == 24 * 5 + 3 + 9 * 2
    assert [len(window.ids) for window in reading.windows] == [64, 64, 6 + 141 - 2 * 49]
    assert reading.offsets == plain.offset_mapping
    ids = [reading.windows[window].ids[t] for window, t in reading.tokens.tolist()]
    assert ids == plain.input_ids
    # Of tokens 49 to 57, which two windows have, four are the first one's.
    windows = [window for window, _ in reading.tokens.tolist()]
    assert windows == [0] * 53 + [1] * 49 + [2] * 39


def test_every_token_has_the_window_with_the_most_text_around_it(extractive: MakeReader) -> None:
    reader = extractive("reader.max_prompt_tokens=64", "reader.stride_tokens=30")
    reading = read(reader, LONG)
    starts = [28 * number for number in range(len(reading.windows))]
    sizes = [len(window.ids) - 6 for window in reading.windows]
    assert starts[-1] + sizes[-1] == 141
    for token, (window, _) in enumerate(reading.tokens.tolist()):
        around = {
            number: min(
                token - start if start else math.inf,
                start + size - 1 - token if start + size < 141 else math.inf,
            )
            for number, (start, size) in enumerate(zip(starts, sizes, strict=True))
            if start <= token < start + size
        }
        assert around[window] == max(around.values())


def test_logits_are_those_of_each_window_read_alone(extractive: MakeReader) -> None:
    """Null is taken from the window in which it is least likely."""
    reader = extractive("reader.max_prompt_tokens=64")
    reading = read(reader, LONG)
    with torch.inference_mode():
        found = torch.stack(reader.logits([reading]))[:, 0]
        alone = [
            reader.model(
                input_ids=torch.tensor([window.ids]), token_type_ids=torch.tensor([window.types])
            )
            for window in reading.windows
        ]
    both = [torch.stack([one.start_logits[0], one.end_logits[0]]) for one in alone]
    expected = torch.stack([both[window][:, t] for window, t in reading.tokens.tolist()], 1)
    torch.testing.assert_close(found[:, 1:], expected, atol=1e-5, rtol=0)
    nulls = [one[:, 0] for one in both]
    least = min(nulls, key=lambda null: float(null.sum()))
    assert len({round(float(null.sum()), 3) for null in nulls}) == 3
    torch.testing.assert_close(found[:, 0], least, atol=1e-5, rtol=0)


def test_padding_and_other_passages_change_no_logit(reader: ExtractiveReader) -> None:
    readings = reader.read([QUESTION] * 3, [TEXT, "the boat", LONG])
    with torch.inference_mode():
        together = reader.logits(readings)
        at_once = reader.logits(readings, at_once=True)
        apart = reader.logits(readings[1:2])
    assert together[0].shape == (3, 1 + 141)
    for grouped, padded, plain in zip(together, at_once, apart, strict=True):
        torch.testing.assert_close(grouped, padded, atol=1e-5, rtol=0)
        torch.testing.assert_close(grouped[1, :3], plain[0], atol=1e-5, rtol=0)
        assert bool(torch.isinf(grouped[1, 3:]).all())


def test_tokens_are_counted_with_and_without_padding(reader: ExtractiveReader) -> None:
    readings = reader.read([QUESTION] * 3, [TEXT, TEXT + " north", "the boat"])
    with torch.inference_mode():
        reader.logits(readings)
        assert (reader.tokens_read, reader.tokens_padded) == (15 + 16 + 8, 16 + 16 + 8)
        reader.logits(readings, at_once=True)
        assert (reader.tokens_read, reader.tokens_padded) == (2 * 39, 40 + 3 * 16)


def test_a_long_question_leaves_half_of_the_window_to_the_passage(extractive: MakeReader) -> None:
    reader = extractive("reader.max_prompt_tokens=64")
    reading = read(reader, LONG, question="who sails north " * 40)
    # 32 - 3 tokens of the question, 3 special ones, 32 of the passage.
    assert [len(window.ids) for window in reading.windows[:2]] == [64, 64]
    assert reading.windows[0].types == [0] * 31 + [1] * 33
    assert reading.windows[1].ids[:31] == reading.windows[0].ids[:31]


def test_an_empty_passage_has_its_null_answer_alone(reader: ExtractiveReader) -> None:
    with torch.inference_mode():
        start, end = reader.logits([read(reader, "")])
    assert start.shape == end.shape == (1, 1)


def test_a_model_that_reads_less_than_two_strides_is_refused(tiny_bert: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert, model_max_length=18)
    config = AutoConfig.from_pretrained(tiny_bert)
    params = ReaderParams(kind="extractive", model="boats", fusion="joint", stride_tokens=9)
    with pytest.raises(ModelError, match=r"'boats' reads 18 tokens at once: reader\.stride_tokens"):
        WindowReader(tokenizer, config, params)
