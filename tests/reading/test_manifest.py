"""reader.json: what goes with a tuned reader, and what a report says of it."""

from __future__ import annotations

import pytest

from rag.errors import ModelError
from rag.params import ReaderParams
from rag.reading.reader import manifest_examples, manifest_temperature, reading_facts

EXAMPLES = [
    {"question": "Who rests?", "passages": ["The crew rests."], "answer": "the crew"},
    {"question": "Who rows?", "passages": ["Anna rows.", "Ben cooks."], "answer": "Anna"},
]


def test_examples_that_are_missing_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ModelError, match="holds 2 worked examples, and 3 are asked for: lower"):
        manifest_examples({"examples": EXAMPLES}, 3)
    with pytest.raises(ModelError, match="holds 0 worked examples, and 1"):
        manifest_examples({}, 1)
    [first] = manifest_examples({"examples": EXAMPLES}, 1)
    assert (first.question, first.passages, first.answer) == (
        "Who rests?",
        ("The crew rests.",),
        "the crew",
    )


def test_a_manifest_without_a_temperature_is_of_before_there_was_one() -> None:
    assert manifest_temperature({}) == 1.0
    assert manifest_temperature({"prior_temperature": 0.25}) == 0.25


def test_what_a_reader_that_weighs_passages_says_of_itself() -> None:
    params = ReaderParams(
        fusion="rag_sequence", passages=4, decoding="fast", beams=3, examples=2, quantize="int8"
    )
    manifest = {"prior_temperature": 0.0625, "prompt_version": "abc", "export": "merged"}
    assert reading_facts(params, manifest) == {
        "Passages read": "4",
        "Fusion": "rag_sequence",
        "Prior temperature": "0.0625",
        "Weights": "merged, int8",
        "Decoding": "3 beams, fast",
        "Answers": "copied from the passages",
        "Examples in a prompt": "2",
        "Prompt version": "abc",
    }
    weighed = reading_facts(params, {**manifest, "query_likelihood": 0.04})
    assert weighed["Query likelihood"] == "weight 0.04"


def test_what_does_not_apply_to_a_reader_is_not_said_of_it() -> None:
    concat = reading_facts(ReaderParams(), {"prompt_version": "abc"})
    assert concat["Prior temperature"] == "weighs no passages"
    assert concat["Decoding"] == "greedy"
    worded = reading_facts(ReaderParams(verbatim=False), {})
    assert worded["Answers"] == "in the model's own words"
    extractive = ReaderParams(kind="extractive", model="bundled:minilm", fusion="joint")
    assert reading_facts(extractive, {}) == {
        "Passages read": "1",
        "Fusion": "joint",
        "Prior temperature": "weighs no passages",
        "Weights": "adapter",
        "Decoding": "best span",
    }
