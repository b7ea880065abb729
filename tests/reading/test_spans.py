"""Which span or text is the answer, on logits whose probabilities are worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from rag.reading.extractive import ExtractiveReader
from rag.reading.spans import Logits, likeliest_span, likeliest_text
from rag.reading.windows import Reading
from rag.records import Passage

MakeReader = Callable[..., ExtractiveReader]


@pytest.fixture
def reader(extractive: MakeReader) -> ExtractiveReader:
    return extractive()


def three_words(reader: ExtractiveReader, *texts: str) -> list[Reading]:
    readings = reader.read(["who"] * len(texts), texts)
    assert [len(reading.tokens) for reading in readings] == [3] * len(texts)
    return readings


def logits(*values: tuple[list[float], list[float]]) -> list[Logits]:
    """Start and end logits, null first."""
    return [(np.array(start), np.array(end)) for start, end in values]


def test_null_wins_by_hand(reader: ExtractiveReader) -> None:
    """Start and end total e^2 + 3 each."""
    found = likeliest_span(
        three_words(reader, "the red boat"), logits(([2.0, 0, 0, 0], [2.0, 0, 0, 0])), 24
    )
    assert found == ("", pytest.approx(4 - 2 * math.log(math.e**2 + 3)))


def test_a_span_does_not_begin_at_the_null_token(reader: ExtractiveReader) -> None:
    """Null to "boat" would have 5 + 5; null has 5 + 0, as has the best span in the passage."""
    found = likeliest_span(
        three_words(reader, "the red boat"), logits(([5.0, 0, 0, 0], [0, 0, 0, 5.0])), 24
    )
    assert found == ("", pytest.approx(5 - 2 * math.log(math.e**5 + 3)))


def test_a_confident_passage_wins_over_a_hesitant_null(reader: ExtractiveReader) -> None:
    found = likeliest_span(
        three_words(reader, "the red boat", "the red boat"),
        logits(([1.0, 0, 0, 0], [1.0, 0, 0, 0]), ([0, 0, 3.0, 0], [0, 2.5, 0, 1.0])),
        24,
    )
    # The best end, "the", lies before the best start, "red", and so cannot end its span.
    start = math.log((math.e + 3) + (3 + math.e**3))
    end = math.log((math.e + 3) + (2 + math.e**2.5 + math.e))
    assert found == ("red boat", pytest.approx(3.0 + 1.0 - start - end))


def test_an_answer_is_no_longer_than_allowed(reader: ExtractiveReader) -> None:
    """ "the red boat" has 5 + 4; "boat" 4.5 + 4, "the red" 5 + 3."""
    readings = three_words(reader, "the red boat")
    values = logits(([0, 5.0, 0, 4.5], [0, 0, 3.0, 4.0]))
    assert likeliest_span(readings, values, 3)[0] == "the red boat"
    assert likeliest_span(readings, values, 2)[0] == "boat"


def logs(*chances: float) -> list[float]:
    return [math.log(chance) for chance in chances]


def test_two_passages_that_agree_win_over_a_surer_one_by_hand(reader: ExtractiveReader) -> None:
    """p("red" | z) is 1/4 in the first two passages, p("boat" | z) is 3/8 in the third."""
    alike = logs(1 / 6, 1 / 6, 1 / 2, 1 / 6)
    text, score, posterior = likeliest_text(
        three_words(reader, "the red boat", "The Red boat", "the blue boat"),
        logits(
            (alike, alike),
            (alike, alike),
            (logs(1 / 4, 1 / 8, 1 / 8, 1 / 2), logs(1 / 12, 1 / 12, 1 / 12, 3 / 4)),
        ),
        np.log([1 / 3, 1 / 3, 1 / 3]),
        24,
    )
    # "red" has 1/6 in all; "boat" a third of 3/8 and, of the others, 2/3 of 1/36: 0.144.
    assert text.lower() == "red"
    assert score == pytest.approx(math.log(1 / 6))
    assert posterior == pytest.approx([0.5, 0.5, 0.0])


def test_a_text_is_written_as_in_its_likeliest_span(reader: ExtractiveReader) -> None:
    """ "Red" is half as likely as "red", and both are one answer."""
    values = logs(0.1, 0.2, 0.6, 0.1)
    text, score, _ = likeliest_text(
        three_words(reader, "Red red boat"), logits((values, values)), np.zeros(1), 1
    )
    assert text == "red"
    assert score == pytest.approx(math.log(0.2**2 + 0.6**2))


def test_the_prior_decides_between_passages_that_disagree(extractive: MakeReader) -> None:
    """Scores 1 and 0 at temperature 1 / ln 3 are weights of 3/4 and 1/4."""
    reader = extractive("reader.fusion=rag_sequence", prior_temperature=1 / math.log(3))
    passages = [
        Passage("a", "d", "the red boat", 0.0, 1),
        Passage("b", "d", "the blue boat", 1.0, 2),
    ]
    prior = reader.log_prior([passages], 3)[0].numpy()
    assert prior.tolist() == pytest.approx([*logs(1 / 4, 3 / 4), -math.inf])
    sure = [-20.0, -20.0, 20.0, -20.0]
    text, score, posterior = likeliest_text(
        three_words(reader, *(one.text for one in passages)),
        logits((sure, sure), (sure, sure)),
        prior[:2].astype(np.float64),
        24,
    )
    assert (text, score) == ("blue", pytest.approx(math.log(3 / 4)))
    assert posterior == pytest.approx([0.0, 1.0])


def test_null_is_one_answer_of_all_passages(reader: ExtractiveReader) -> None:
    """Null has 1/4 of both passages; "red" and "blue" have 1/4 of one, so 1/8."""
    halves = [0.0, -40.0, 0.0, -40.0]
    text, score, posterior = likeliest_text(
        three_words(reader, "the red boat", "the blue boat"),
        logits((halves, halves), (halves, halves)),
        np.log([1 / 2, 1 / 2]),
        24,
    )
    assert (text, score) == ("", pytest.approx(math.log(1 / 4)))
    assert posterior == pytest.approx([0.5, 0.5])
