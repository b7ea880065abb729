"""rag/params.py: nonsense is refused at once, every problem with its path."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from rag.errors import ParamsError
from rag.params import Params, load_params, merge_overrides, parse_params

ROOT = Path(__file__).resolve().parent.parent


def problems(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        parse_params(tree, source="p")
    return list(caught.value.problems)


def test_an_empty_file_gives_the_defaults() -> None:
    assert parse_params({}) == Params()


def test_the_file_in_the_project_names_every_parameter_and_its_default() -> None:
    written = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert written == Params().model_dump(mode="json")


def test_params_are_frozen() -> None:
    params, name = Params(), "rank"
    with pytest.raises(ValidationError, match="frozen"):
        setattr(params.reader.lora, name, 8)


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"readr": {}}, "p: readr: unknown key"),
        ({"reader": {"lora": {"rnk": 8}}}, "p: reader.lora.rnk: unknown key"),
        ({"seed": True}, "p: seed: Input should be a valid integer, got True"),
        (
            {"prepare": {"strict": "yes"}},
            "p: prepare.strict: Input should be a valid boolean, got 'yes'",
        ),
        (
            {"reader": {"lora": {"rank": 0}}},
            "p: reader.lora.rank: Input should be greater than or equal to 1, got 0",
        ),
        (
            {"retrieve": {"dense_weights": [0.2, 1.5]}},
            "p: retrieve.dense_weights.1: Input should be less than or equal to 1, got 1.5",
        ),
        (
            {"evaluate": {"baselines": ["oracle"]}},
            "p: evaluate.baselines.0: Input should be 'zero_shot', 'one_shot' or 'closed_book', "
            "got 'oracle'",
        ),
        (
            {
                "reader": {"kind": "extractive", "model": "bundled:minilm", "fusion": "joint"},
                "evaluate": {"baselines": ["zero_shot", "one_shot"]},
            },
            "p: evaluate.baselines: one_shot shows an example in the prompt, and reader.kind "
            "'extractive' has no prompt",
        ),
        (
            {"retrieve": {"top_k": 60}},
            "p: retrieve: candidates (50) must be >= top_k (60)",
        ),
        (
            {"reader": {"passages": 9}},
            "p: reader.passages (9) must be <= retrieve.top_k (8)",
        ),
        (
            {"prepare": {"test_share": 0.6, "dev_share": 0.4}},
            "p: prepare: test_share + dev_share must be below 1, got 0.6 + 0.4: "
            "nothing would be left to train on",
        ),
        (
            {"chunk": {"max_chunk_tokens": 512}},
            "p: chunk.max_chunk_tokens (512) must be <= retriever.max_tokens (256): "
            "the encoder would cut chunks",
        ),
        (
            {"index": {"kind": "server"}},
            "p: index: kind 'server' needs url, for example http://localhost:6333",
        ),
        (
            {"index": {"url": "http://q:6333"}},
            "p: index: url 'http://q:6333' is only used by kind 'server', not by 'edge'",
        ),
        (
            {"retriever": {"precision": "int8"}},
            "p: retriever: precision 'int8' needs backend 'openvino', got 'torch'",
        ),
        (
            {"retriever": {"training": {"mining_rounds": 2}}},
            "p: retriever.training: mining_rounds (2) above 1 needs hard_negatives >= 1, got 0",
        ),
        (
            {"embed": {"workers": 4}},
            "p: embed: address and workers are only used by engine 'ray', not by 'local'",
        ),
        (
            {"retrieve": {"rerank": {"model": "some/reranker", "passages": 60}}},
            "p: retrieve: candidates (50) must be >= rerank.passages (60)",
        ),
        (
            {"reader": {"kind": "extractive"}},
            "p: reader: model bundled:smollm2-135m is a causal model; "
            "kind 'extractive' takes bundled:minilm",
        ),
        (
            {"reader": {"model": "bundled:minilm"}},
            "p: reader: model bundled:minilm is an encoder; "
            "kind 'causal' takes bundled:smollm2-135m",
        ),
        (
            {"gate": {"floors": {}}},
            "p: gate: floors must name at least one metric: a gate without one is open",
        ),
    ],
)
def test_one_problem(tree: dict[str, Any], problem: str) -> None:
    assert problems(tree) == [problem]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "gradient_clip", "max_minutes"])
def test_a_number_must_be_finite(name: str, value: float) -> None:
    [problem] = problems({"reader": {"training": {name: value}}})
    assert problem.startswith(f"p: reader.training.{name}: ")


@pytest.mark.parametrize("value", ["never", float("nan")])
def test_an_impossible_threshold_is_one_problem(value: object) -> None:
    [problem] = problems({"reader": {"abstain": value}})
    assert problem.startswith("p: reader.abstain: ")


def test_all_problems_are_reported_at_once() -> None:
    """Also the contradiction in `index`, which stands beside invalid values elsewhere."""
    found = problems(
        {
            "typo": 1,
            "seed": -1,
            "index": {"kind": "server"},
            "reader": {"lora": {"rank": 0}, "training": {"epochs": 0}},
        }
    )
    assert {problem.split(": ")[1] for problem in found} == {
        "typo",
        "seed",
        "index",
        "reader.lora.rank",
        "reader.training.epochs",
    }
    assert len(found) == 5


def test_a_contradiction_does_not_hide_another_one() -> None:
    found = problems({"reader": {"kind": "extractive", "passages": 9}})
    assert "p: reader.passages (9) must be <= retrieve.top_k (8)" in found
    assert len(found) == 2


def test_flat_has_one_entry_for_each_leaf() -> None:
    flat = Params().flat()
    assert flat["reader.lora.rank"] == 16
    assert flat["evaluate.baselines"] == ["zero_shot", "closed_book"]
    assert flat["gate.floors.f1"] == 30.0
    assert not any(isinstance(value, dict) and value for value in flat.values())


def test_an_override_changes_one_value() -> None:
    tree = {"seed": 1, "reader": {"lora": {"rank": 16, "alpha": 32}}}
    merged = merge_overrides(tree, ["reader.lora.rank=8", "retrieve.dense_weights=[0.5, 1.0]"])
    assert merged == {
        "seed": 1,
        "reader": {"lora": {"rank": 8, "alpha": 32}},
        "retrieve": {"dense_weights": [0.5, 1.0]},
    }
    assert tree["reader"] == {"lora": {"rank": 16, "alpha": 32}}, "the original stays as it was"


@pytest.mark.parametrize("override", ["seed", "=3", "seed.deeper=3", "reader.lora={"])
def test_an_override_that_cannot_be_read_is_named(override: str) -> None:
    with pytest.raises(ParamsError) as caught:
        merge_overrides({"seed": 1}, [override])
    assert caught.value.problems[0].startswith(f"--set {override}: ")


def test_every_unreadable_override_is_named() -> None:
    with pytest.raises(ParamsError) as caught:
        merge_overrides({"seed": 1}, ["seed", "reader.lora.rank=8", "seed.deeper=3"])
    assert caught.value.problems == (
        "--set seed: expected section.key=value",
        "--set seed.deeper=3: seed is a value, not a section",
    )


def test_a_number_with_an_exponent_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 takes 5e-4 for text, YAML 1.2 (which DVC reads params.yaml with) for a number."""
    path = tmp_path / "params.yaml"
    path.write_text("reader: {training: {learning_rate: 5e-4}}\n", encoding="utf-8")
    assert load_params(path).reader.training.learning_rate == 0.0005
    overrides = ["reader.training.learning_rate=1e-3"]
    assert load_params(path, overrides).reader.training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"reader: [", "not valid YAML"),
        (b"seed: \xff", "not valid YAML"),
        (b"- seed", "expected sections such as 'reader:', got list"),
        (b"", "expected sections such as 'reader:', got NoneType"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file; run in the project's folder"):
        load_params(tmp_path / "params.yaml")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nseed: 2\n", encoding="utf-8")
    with pytest.raises(ParamsError, match="seed"):
        load_params(path)
