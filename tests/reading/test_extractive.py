"""The extractive reader: places of answers by hand, probabilities by definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from rag.reading.extractive import ExtractiveReader, Reading, token_spans
from rag.records import Passage

MakePassage = Callable[[str], Passage]
QUESTION = "who sails?"
TEXT = "the red boat sails. the blue boat rests"
#    0     1   2     3 4     5   6   7    8     9 10  11   12   13    14
# [CLS] who sails ? [SEP] the red boat sails . the blue boat rests [SEP]


def probabilities(reader: ExtractiveReader, readings: list[Reading]) -> dict[str, float]:
    """p of every span text that `answer` may give, "" for null, by the definition."""
    with torch.inference_mode():
        start, end = (part.double().numpy() for part in reader.logits(readings))
    total = np.log(np.exp(start).sum()) + np.log(np.exp(end).sum())
    found = {"": max(math.exp(s[0] + e[0] - total) for s, e in zip(start, end, strict=True))}
    for reading, s, e in zip(readings, start, end, strict=True):
        tokens = [t for t, offset in enumerate(reading.offsets) if offset is not None]
        for first, last in itertools.combinations_with_replacement(tokens, 2):
            if last - first < reader.params.max_answer_tokens:
                text = reading.between(first, last)
                found[text] = max(found.get(text, 0.0), math.exp(s[first] + e[last] - total))
    return found


def test_reading_marks_the_tokens_of_the_passage(extractive: ExtractiveReader) -> None:
    reading = extractive.read(QUESTION, TEXT)
    inside = [t for t, offset in enumerate(reading.offsets) if offset is not None]
    assert inside == list(range(5, 14))
    assert reading.types == [0] * 5 + [1] * 10
    assert reading.between(6, 7) == "red boat"
    assert reading.between(8, 9) == "sails."
    assert reading.between(5, 13) == TEXT


def test_spans_of_every_place(extractive: ExtractiveReader) -> None:
    reading = extractive.read(QUESTION, TEXT)
    assert token_spans(reading, ["boat"]) == [(7, 7), (12, 12)]
    assert token_spans(reading, ["red boat", "boat rests"]) == [(6, 7), (12, 13)]
    assert token_spans(reading, ["boat", "the red boat", "boat"]) == [(5, 7), (7, 7), (12, 12)]
    assert token_spans(reading, [""]) == [(0, 0)]
    assert token_spans(reading, ["marlow"]) == []
    assert token_spans(reading, ["who"]) == []  # it stands in the question only


def test_a_span_of_word_pieces_has_all_of_them(extractive: ExtractiveReader) -> None:
    reading = extractive.read("who?", "seagulls sails southward")
    first, last = token_spans(reading, ["seagulls"])[0]
    assert last - first == 2
    assert reading.between(first, last) == "seagulls"


def test_spans_by_character_in_chinese(extractive: ExtractiveReader) -> None:
    reading = extractive.read("who?", "北京港 北京")
    # [CLS] who ? [SEP] 北 京 港 北 京 [SEP]
    assert token_spans(reading, ["北京"]) == [(4, 5), (7, 8)]
    assert token_spans(reading, ["京港"]) == [(5, 6)]
    assert reading.between(4, 6) == "北京港"
    assert reading.between(6, 7) == "港 北"


def test_an_answer_cut_off_with_the_passage_has_no_place(extractive: ExtractiveReader) -> None:
    text = "the red boat " * 40 + "captain marlow"
    reading = extractive.read(QUESTION, text)
    assert len(reading.ids) == extractive.params.max_prompt_tokens
    assert token_spans(reading, ["captain"]) == []
    assert len(token_spans(reading, ["red boat"])) == 30
    # The passage ends with a "boat" whose "the" was cut off.
    assert len(token_spans(reading, ["boat the"])) == 29


def test_padding_changes_no_logit(extractive: ExtractiveReader) -> None:
    readings = [extractive.read(QUESTION, text) for text in (TEXT, "the boat")]
    with torch.inference_mode():
        together = extractive.logits(readings)
        apart = extractive.logits(readings[1:])
    width = len(readings[1].ids)
    for padded, plain in zip(together, apart, strict=True):
        torch.testing.assert_close(padded[1, :width], plain[0], atol=1e-5, rtol=0)
        assert bool(torch.isinf(padded[1, width:]).all())
    outside = [t for t, offset in enumerate(readings[0].offsets) if offset is None and t > 0]
    assert bool(torch.isinf(together[0][0, outside]).all())


def test_the_answer_is_the_likeliest_span_of_all_passages(
    extractive: ExtractiveReader, passage: MakePassage
) -> None:
    texts = [TEXT, "a captain sails south at noon", "marlow"]
    readings = [extractive.read(QUESTION, text) for text in texts[:2]]
    chances = probabilities(extractive, readings)
    assert sum(chances.values()) <= 1.0
    [answer] = extractive.answer([QUESTION], [[passage(text) for text in texts]])
    best = max(chances, key=lambda text: chances[text])
    assert answer.text == best
    assert answer.score == pytest.approx(math.log(chances[best]), abs=1e-4)
    assert [evidence.text for evidence in answer.evidence] == texts[:2]  # reader.passages


def fixed_logits(
    values: Sequence[tuple[list[float], list[float]]],
) -> Callable[[Sequence[Reading]], tuple[torch.Tensor, torch.Tensor]]:
    """A model that returns these start and end logits for passages of three tokens."""
    start, end = (torch.full((len(values), 7), -torch.inf) for _ in range(2))
    for row, (first, last) in enumerate(values):
        for tensor, own in ((start, first), (end, last)):
            tensor[row, [0, 3, 4, 5]] = torch.tensor(own)
    return lambda _: (start, end)


def test_null_wins_by_hand(
    extractive: ExtractiveReader, passage: MakePassage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[CLS] who [SEP] the red boat [SEP]; start and end total e^2 + 3 each."""
    monkeypatch.setattr(extractive, "logits", fixed_logits([([2.0, 0, 0, 0], [2.0, 0, 0, 0])]))
    [answer] = extractive.answer(["who"], [[passage("the red boat")]])
    assert (answer.text, answer.abstained) == ("", True)
    assert answer.score == pytest.approx(4 - 2 * math.log(math.e**2 + 3))


def test_a_span_does_not_begin_at_the_null_token(
    extractive: ExtractiveReader, passage: MakePassage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[CLS] to "boat" would have 5 + 5; null has 5 + 0, as has the best span in the passage."""
    monkeypatch.setattr(extractive, "logits", fixed_logits([([5.0, 0, 0, 0], [0, 0, 0, 5.0])]))
    [answer] = extractive.answer(["who"], [[passage("the red boat")]])
    assert (answer.text, answer.abstained) == ("", True)
    assert answer.score == pytest.approx(5 - 2 * math.log(math.e**5 + 3))


def test_a_confident_passage_wins_over_a_hesitant_null(
    extractive: ExtractiveReader, passage: MakePassage, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [([1.0, 0, 0, 0], [1.0, 0, 0, 0]), ([0, 0, 3.0, 0], [0, 2.5, 0, 1.0])]
    monkeypatch.setattr(extractive, "logits", fixed_logits(values))
    [answer] = extractive.answer(["who"], [[passage("the red boat")] * 2])
    # The best end, "the", lies before the best start, "red", and so cannot end its span.
    assert (answer.text, answer.abstained) == ("red boat", False)
    start = math.log((math.e + 3) + (3 + math.e**3))
    end = math.log((math.e + 3) + (2 + math.e**2.5 + math.e))
    assert answer.score == pytest.approx(3.0 + 1.0 - start - end)


def test_log_likelihood_normalises_each_passage_alone(
    extractive: ExtractiveReader, passage: MakePassage
) -> None:
    found = [[passage(TEXT), passage("captain marlow")], [passage(TEXT)]]
    table = extractive.log_likelihood([QUESTION] * 2, found, ["boat", ""])
    assert table.shape == (2, 2)
    with torch.inference_mode():
        start, end = extractive.logits([extractive.read(QUESTION, TEXT)])
    start, end = start[0].log_softmax(0), end[0].log_softmax(0)
    places = torch.stack([start[7] + end[7], start[12] + end[12]])
    assert table[0, 0] == pytest.approx(float(places.logsumexp(0)), abs=1e-4)
    assert table[1, 0] == pytest.approx(float(start[0] + end[0]), abs=1e-4)
    assert table[0, 1] == table[1, 1] == -np.inf


def test_without_passages_there_is_no_answer(extractive: ExtractiveReader) -> None:
    [answer] = extractive.answer([QUESTION], [[]])
    assert (answer.text, answer.abstained) == ("", True)
