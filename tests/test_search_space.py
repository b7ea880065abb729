"""rag/search_space.py: what cannot be searched is refused at once, by name."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rag.errors import ParamsError
from rag.params import Params, parse_params
from rag.search_space import Dimension, current_values, search_space, with_values


def params(space: dict[str, Any], **others: Any) -> Params:
    return parse_params({"tune": {"space": space}, **others})


def problems(space: dict[str, Any], **others: Any) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        search_space(params(space, **others))
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("key", "searched", "problem"),
    [
        ("reader.lora.rnk", {"choices": [8]}, "unknown key"),
        ("reader.lorra.rank", {"choices": [8]}, "reader.lorra: unknown key"),
        (
            "reader.lora.rank",
            {"low": 0, "high": 16},
            "Input should be greater than or equal to 1, got 0",
        ),
        (
            "reader.training.learning_rate",
            {"low": 0.1, "high": 2.0},
            "Input should be less than or equal to 1, got 2.0",
        ),
        (
            "reader.training.batch_tokens",
            {"low": 64.0, "high": 128},
            "Input should be a valid integer, got 64.0",
        ),
        (
            "reader.kind",
            {"choices": ["causal", "oracle"]},
            "Input should be 'causal', 'seq2seq' or 'extractive', got 'oracle'",
        ),
        (
            "retriever.training.lora.rank",
            {"choices": [8]},
            "retriever.training.lora is null in params.yaml; give it a section there",
        ),
        (
            "reader.training.dev_questions",
            {"choices": [50, 100]},
            "would change the questions that trials are compared on",
        ),
        (
            "prepare.dev_share",
            {"choices": [0.1, 0.2]},
            "changes nothing that is compared; objective 'reader' searches chunk, retriever, "
            "retrieve, reader, index.hnsw, index.oversampling, index.quantization, index.rescore, "
            "index.search",
        ),
    ],
)
def test_one_error_names_the_key(key: str, searched: dict[str, Any], problem: str) -> None:
    assert problems({key: searched}) == [f"tune.space.{key}: {problem}"]


def test_every_problem_is_told_at_once_and_in_milliseconds() -> None:
    space = {"reader.lora.rnk": {"choices": [1]}, "reader.lora.rank": {"low": 0, "high": 4}}
    given = params(space)
    started = time.perf_counter()
    with pytest.raises(ParamsError) as caught:
        search_space(given)
    assert time.perf_counter() - started < 0.1
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("searched", "problem"),
    [
        ({"low": 4, "high": 2}, "low (4) must be below high (2)"),
        ({"low": 0, "high": 2, "log": True}, "a logarithmic range needs low above 0, got 0"),
        ({"low": 1}, "give low and high, or choices"),
        (
            {"choices": [1], "log": True},
            "choices stand alone: low, high, log and step are of a range",
        ),
        ({"choices": [1, 1]}, "choices must differ, got [1, 1]"),
    ],
)
def test_a_range_or_choices(searched: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params({"reader.lora.rank": searched})
    assert caught.value.problems == (f"params: tune.space.reader.lora.rank: {problem}",)


def test_a_retriever_that_is_not_tuned_has_nothing_to_compare() -> None:
    tree = {"space": {"retriever.training.epochs": {"choices": [1, 2]}}, "objective": "retriever"}
    with pytest.raises(ParamsError, match=r"retriever.mode 'none' tunes nothing"):
        search_space(parse_params({"tune": tree}))
    found = search_space(parse_params({"tune": tree, "retriever": {"mode": "query"}}))
    assert [item.key for item in found] == ["retriever.training.epochs"]
    with pytest.raises(ParamsError, match="objective 'retriever' searches retriever"):
        search_space(
            parse_params({"tune": tree | {"space": {"chunk.max_chunk_tokens": {"choices": [64]}}}})
        )


def test_the_field_says_what_kind_of_number_it_is() -> None:
    found = search_space(
        params(
            {
                "reader.lora.dropout": {"low": 0, "high": 0.5},
                "reader.lora.rank": {"low": 4, "high": 5},
                "reader.end_to_end": {"choices": [None, {"learning_rate": 1e-5}]},
            }
        )
    )
    assert [(item.key, item.kind) for item in found] == [
        ("reader.end_to_end", "choice"),
        ("reader.lora.dropout", "float"),
        ("reader.lora.rank", "int"),
    ]
    choice = found[0]
    assert choice.labels() == [None, '{"learning_rate":1e-05}']
    assert choice.value('{"learning_rate":1e-05}') == {"learning_rate": 1e-05}


def test_a_sampled_number_is_rounded_to_four_digits_inside_its_range() -> None:
    dimension = Dimension("x", "float", low=0.00012344, high=0.5)
    assert dimension.value(0.000345678) == 0.0003457
    assert dimension.value(0.000123441) == 0.00012344  # not 0.0001234, which is below
    assert Dimension("x", "float", low=-1.0, high=1.0).value(0.0) == 0.0


def test_a_trial_gets_its_values_and_contradictions_are_refused() -> None:
    given = params({"reader.passages": {"low": 1, "high": 12}})
    search_space(given)
    assert with_values(given, {"reader.passages": 3}).reader.passages == 3
    with pytest.raises(ParamsError, match=r"reader.passages \(9\) must be <= retrieve.top_k \(8\)"):
        with_values(given, {"reader.passages": 9})


def test_the_current_values_are_a_trial_where_the_space_holds_them() -> None:
    space = {
        "reader.lora.rank": {"choices": [8, 16]},
        "reader.training.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True},
    }
    given = params(space)
    expected = {"reader.lora.rank": 16, "reader.training.learning_rate": 1e-3}
    assert current_values(given, search_space(given)) == expected
    for reader in ({"lora": {"rank": 4}}, {"training": {"learning_rate": 2e-3}}):
        outside = params(space, reader=reader)
        assert current_values(outside, search_space(outside)) is None
    stepped = params({"reader.training.epochs": {"low": 1, "high": 7, "step": 3}})
    assert current_values(stepped, search_space(stepped)) is None  # 2 is not 1, 4 or 7
