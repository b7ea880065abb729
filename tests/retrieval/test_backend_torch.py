"""A model of the plain make, run by transformers alone: the bytes of sentence-transformers."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.params import RetrieverParams
from rag.retrieval.backend_torch import Plain, TorchBackend, load_model, plain_make, preprocess
from rag.retrieval.encoder import Encoder, FloatMatrix
from rag.weights import Weights, checked_folder, resolve_weights
from tests.tiny_bert import save_tiny_sentence_transformer

#: Of one padded length in MiniLM's tokens, another for each row; the last is cut in the middle.
ROWS = (
    ["ferry"],
    ["  The Petrel sails at 06:40.\n", "Fares: adult 240 kr, a child"],
    ["渡輪在早上六點四十分開出"],
    [""],
    ["boat " * 400, "the red port " * 200],
)
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sentence_transformer(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def change(path: Path, how: Change) -> None:
    tree = json.loads(path.read_text(encoding="utf-8"))
    how(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")


def reference(params: RetrieverParams, weights: Weights, texts: list[str]) -> FloatMatrix:
    """The vectors of these texts by sentence-transformers, brought to length 1."""
    import torch

    model = load_model(params, weights, params.precision, "cpu")
    with torch.inference_mode():
        found = model(preprocess(model, texts))["sentence_embedding"].float()
        unit: FloatMatrix = torch.nn.functional.normalize(found, dim=-1).numpy()
    return unit


def check_same_bytes(params: RetrieverParams, weights: Weights) -> None:
    backend = TorchBackend(params, weights, "cpu")
    for texts in ROWS:
        found = backend.encode(texts)
        assert found.tobytes() == reference(params, weights, texts).tobytes(), texts


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_minilm_gives_the_bytes_of_sentence_transformers(cache: Path, precision: str) -> None:
    params = RetrieverParams.model_validate({"precision": precision, "max_tokens": 64})
    weights = resolve_weights(params.model, None, cache)
    assert plain_make(weights.folder) == Plain("mean", normalised=True)
    check_same_bytes(params, weights)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_other_poolings_give_the_bytes_of_sentence_transformers(folder: Path, pooling: str) -> None:
    change(folder / "1_Pooling" / "config.json", lambda tree: tree.update(pooling_mode=pooling))
    change(folder / "modules.json", lambda parts: parts.pop())  # the one that normalises
    assert plain_make(folder) == Plain(pooling, normalised=False)
    params = RetrieverParams(model=str(folder), max_tokens=32)
    check_same_bytes(params, checked_folder("tiny", folder))


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("1_Pooling/config.json", lambda tree: tree.update(pooling_mode="max")),
        ("1_Pooling/config.json", lambda tree: tree.update(pooling_mode=["cls", "mean"])),
        ("modules.json", lambda parts: parts[2].update(type="sentence_transformers.x.Dense")),
        ("modules.json", lambda parts: parts[0].update(type="someone.Transformer")),
        ("2_Normalize/config.json", lambda tree: tree.update(module_output_name="other")),
        ("sentence_bert_config.json", lambda tree: tree.update(do_lower_case=True)),
        ("sentence_bert_config.json", lambda tree: tree.update(query_length=8)),
        ("config.json", lambda tree: tree.update(model_type="xlm-roberta")),
        ("tokenizer_config.json", lambda tree: tree.update(padding_side="left")),
    ],
)
def test_any_other_make_is_left_to_sentence_transformers(
    folder: Path, file: str, how: Change
) -> None:
    assert plain_make(folder) == Plain("mean", normalised=True)
    change(folder / file, how)
    assert plain_make(folder) is None


def test_a_folder_without_parts_is_left_to_sentence_transformers(folder: Path) -> None:
    (folder / "modules.json").unlink()
    assert plain_make(folder) is None


def test_flags_of_earlier_versions_name_one_pooling(folder: Path) -> None:
    settings = folder / "1_Pooling" / "config.json"
    flags = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    settings.write_text(json.dumps(flags), encoding="utf-8")
    assert plain_make(folder) == Plain("cls", normalised=True)
    settings.write_text(json.dumps({**flags, "pooling_mode_mean_tokens": True}), encoding="utf-8")
    assert plain_make(folder) is None, "both, one after the other"


def test_another_make_is_run_by_sentence_transformers(folder: Path, cache: Path) -> None:
    change(folder / "1_Pooling" / "config.json", lambda tree: tree.update(pooling_mode="max"))
    params = RetrieverParams(model=str(folder), max_tokens=32)
    texts = ["the red boat sails", "north"]
    found = Encoder(params, cache, device="cpu").encode(texts, "passage")
    weights = checked_folder("tiny", folder)
    for text, vector in zip(texts, found, strict=True):
        assert vector.tobytes() == reference(params, weights, [text]).tobytes()


def test_a_plain_model_needs_no_sentence_transformers(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # its import fails
    params = RetrieverParams(model=str(folder), max_tokens=32)
    assert Encoder(params, cache, device="cpu").encode(["a boat"], "query").shape == (1, 32)
