"""The extractive reader against the definition, by a plain sum over all spans."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from rag.reading.extractive import ExtractiveReader
from rag.reading.windows import Reading, token_spans
from rag.records import Passage

MakeReader = Callable[..., ExtractiveReader]
QUESTION = "who sails?"
TEXT = "the red boat sails. the blue boat rests"
LONG = " ".join(["the red boat sails north"] * 24 + ["captain marlow rests"] + ["at noon"] * 9)


@pytest.fixture
def reader(extractive: MakeReader) -> ExtractiveReader:
    return extractive()


def passage(text: str, score: float = 0.5) -> Passage:
    """A passage with this text and score, whose other fields do not matter."""
    return Passage(f"chunk of {text}", "d", text, score, 1)


def read(reader: ExtractiveReader, text: str, question: str = QUESTION) -> Reading:
    return reader.read([question], [text])[0]


def test_an_answer_beyond_the_first_window_is_given(extractive: MakeReader) -> None:
    """The head is made to point at one word: its logits are the state's product with its own."""
    reader = extractive("reader.max_prompt_tokens=64")
    point_at(reader, LONG, "marlow")
    [answer] = reader.answer([QUESTION], [[passage(LONG)]])
    assert answer.text == "marlow"


def point_at(reader: ExtractiveReader, text: str, answer: str) -> None:
    """Sets the head so that the first token of `answer` in `text` has the highest logits."""
    reading = read(reader, text)
    [(first, _)] = token_spans(reading, [answer], 24)
    window, position = reading.tokens[first - 1].tolist()
    with torch.inference_mode():
        states = [
            reader.model.base_model(
                input_ids=torch.tensor([one.ids]), token_type_ids=torch.tensor([one.types])
            ).last_hidden_state[0]
            for one in reading.windows
        ]
        mean = torch.cat(states).mean(0)
        wanted = states[window][position] - mean
        reader.model.qa_outputs.weight.copy_(torch.stack([wanted, wanted]))
        reader.model.qa_outputs.bias.copy_(-torch.stack([wanted @ mean, wanted @ mean]))


def test_bfloat16_is_for_matrix_products_alone(extractive: MakeReader) -> None:
    """Three digits of precision; weights stay in float32, which is what training adds to."""
    exact, mixed = (
        extractive(f"reader.training.precision={name}") for name in ("float32", "bfloat16")
    )
    readings = exact.read([QUESTION] * 2, [TEXT, LONG])
    with torch.inference_mode():
        expected, found = exact.logits(readings)[0], mixed.logits(readings)[0]
    assert {parameter.dtype for parameter in mixed.model.parameters()} == {torch.float32}
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)


# joint


def probabilities(reader: ExtractiveReader, readings: Sequence[Reading]) -> dict[str, float]:
    """p of every span text that `joint` may give, "" for null, by the definition."""
    with torch.inference_mode():
        start, end = (part.double().numpy() for part in reader.logits(readings))
    total = np.log(np.exp(start).sum()) + np.log(np.exp(end).sum())
    found = {"": max(math.exp(s[0] + e[0] - total) for s, e in zip(start, end, strict=True))}
    for reading, s, e in zip(readings, start, end, strict=True):
        for first, last in all_spans(reading, reader.params.max_answer_tokens):
            text = reading.between(first, last)
            found[text] = max(found.get(text, 0.0), math.exp(s[first] + e[last] - total))
    return found


def all_spans(reading: Reading, longest: int) -> list[tuple[int, int]]:
    places = range(1, 1 + len(reading.offsets))
    pairs = itertools.combinations_with_replacement(places, 2)
    return [(first, last) for first, last in pairs if last - first < longest]


@pytest.mark.parametrize("size", [96, 64])
def test_the_answer_is_the_likeliest_span_of_all_passages(
    extractive: MakeReader, size: int
) -> None:
    reader = extractive(f"reader.max_prompt_tokens={size}")
    passages = [passage(text) for text in (TEXT, LONG, "marlow")]
    readings = reader.read([QUESTION] * 2, [TEXT, LONG])
    chances = probabilities(reader, readings)
    assert sum(chances.values()) <= 1.0
    [answer] = reader.answer([QUESTION], [passages])
    best = max(chances, key=lambda text: chances[text])
    assert answer.text == best
    assert answer.score == pytest.approx(math.log(chances[best]), abs=1e-4)
    # reader.passages of them are read, and joint weighs none.
    assert [evidence.text for evidence in answer.evidence] == [TEXT, LONG]
    assert [evidence.posterior for evidence in answer.evidence] == [None, None]


def test_questions_are_answered_apart_and_in_order(reader: ExtractiveReader) -> None:
    found = [[passage(TEXT)], [], [passage("captain marlow"), passage(LONG)], [passage("")]]
    done: list[int] = []
    answers = reader.answer([QUESTION, "what?", "where?", "at?"], found, progress=done.append)
    assert sum(done) == 4
    for question, own, answer in zip(
        [QUESTION, "what?", "where?", "at?"], found, answers, strict=True
    ):
        [alone] = reader.answer([question], [own])
        assert answer.text == alone.text
        assert answer.score == pytest.approx(alone.score, abs=1e-4)
    assert (answers[1].text, answers[1].abstained) == ("", True)
    assert (answers[3].text, answers[3].score) == ("", pytest.approx(0.0))


# rag_sequence


def marginal(
    reader: ExtractiveReader, passages: Sequence[Passage], temperature: float
) -> dict[str, list[float]]:
    """p(z|x) p(y|x,z) of every text y and passage z by the definition, over all spans."""
    readings = reader.read([QUESTION] * len(passages), [p.text for p in passages])
    with torch.inference_mode():
        start, end = (part.double().numpy() for part in reader.logits(readings))
    weights = np.array([math.exp(p.score / temperature) for p in passages])
    weights /= weights.sum()
    found: dict[str, list[float]] = {}
    for z, reading in enumerate(readings):
        total = np.exp(start[z]).sum() * np.exp(end[z]).sum()
        for first, last in [(0, 0), *all_spans(reading, reader.params.max_answer_tokens)]:
            key = " ".join(reading.between(first, last).lower().split())
            chance = weights[z] * math.exp(start[z, first] + end[z, last]) / total
            found.setdefault(key, [0.0] * len(passages))[z] += chance
    return found


@pytest.mark.parametrize(("size", "temperature"), [(96, 1.0), (96, 0.2), (64, 0.5)])
def test_the_likeliest_text_is_summed_over_places_and_passages(
    extractive: MakeReader, size: int, temperature: float
) -> None:
    reader = extractive(
        "reader.fusion=rag_sequence",
        "reader.passages=3",
        f"reader.max_prompt_tokens={size}",
        prior_temperature=temperature,
    )
    passages = [passage(TEXT, 0.3), passage("Boat north", 0.1), passage(LONG, 0.2)]
    chances = marginal(reader, passages, temperature)
    assert sum(map(sum, chances.values())) <= 1.0
    [answer] = reader.answer([QUESTION], [passages])
    best = max(chances, key=lambda text: sum(chances[text]))
    assert answer.text.lower() == best
    total = sum(chances[best])
    assert answer.score == pytest.approx(math.log(total), abs=1e-4)
    posterior = [evidence.posterior for evidence in answer.evidence]
    assert posterior == pytest.approx([own / total for own in chances[best]], abs=1e-4)


# likelihood


def test_log_likelihood_normalises_each_passage_alone(reader: ExtractiveReader) -> None:
    found = [[passage(TEXT), passage("captain marlow")], [passage(TEXT)]]
    table = reader.log_likelihood([QUESTION] * 2, found, ["boat", ""])
    assert table.shape == (2, 2)
    with torch.inference_mode():
        start, end = reader.logits([read(reader, TEXT)])
    start, end = start[0].log_softmax(0), end[0].log_softmax(0)
    places = torch.stack([start[3] + end[3], start[8] + end[8]])
    assert table[0, 0] == pytest.approx(float(places.logsumexp(0)), abs=1e-4)
    assert table[1, 0] == pytest.approx(float(start[0] + end[0]), abs=1e-4)
    assert table[0, 1] == table[1, 1] == -np.inf


def test_the_answer_has_the_likelihood_that_log_likelihood_gives_it(extractive: MakeReader) -> None:
    """log p(y|x) = logsumexp of prior and likelihood; all priors are 1/3 here."""
    reader = extractive(
        "reader.fusion=rag_sequence", "reader.passages=3", "reader.max_prompt_tokens=64"
    )
    passages = [passage(TEXT), passage("Boat north"), passage(LONG)]
    [answer] = reader.answer([QUESTION], [passages])
    table = reader.log_likelihood([QUESTION], [passages], [answer.text])
    assert answer.score == pytest.approx(np.logaddexp.reduce(table[0] - math.log(3)), abs=1e-4)


def test_without_passages_there_is_no_answer(reader: ExtractiveReader) -> None:
    [answer] = reader.answer([QUESTION], [[]])
    assert (answer.text, answer.abstained, answer.evidence) == ("", True, ())
