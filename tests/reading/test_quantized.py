"""Int8 layers against integers counted by hand and by numpy, and readers served in int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from rag.errors import ModelError
from rag.params import ReaderParams
from rag.reading.causal import CausalReader
from rag.reading.generative import Source
from rag.reading.quantized import quantize_linears, round_rows
from rag.reading.tuned import WEIGHTS
from rag.records import Passage

SOURCES = (
    Source("Who commands the Seafox?", ("The Seafox sails from Elgin under Captain Marlow.",)),
    Source("What did it cost?", ()),
)


class Small(torch.nn.Module):
    """A layer and what a model says of itself."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    @property
    def device(self) -> torch.device:
        return self.layer.weight.device

    def get_output_embeddings(self) -> None:
        return None


def small(weight: list[list[float]] | torch.Tensor, bias: list[float] | None = None) -> Small:
    matrix = torch.as_tensor(weight)
    layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(matrix)
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return Small(layer)


def test_rows_are_rounded_by_their_own_scale() -> None:
    rows = torch.tensor([[127.0, -64.4, 0.6], [254.0, -127.0, 1.0], [0.0, 0.0, 0.0]])
    rounded, scale = round_rows(rows)
    # -63.5 and 0.5 go to the even neighbour.
    assert rounded.tolist() == [[127, -64, 1], [127, -64, 0], [0, 0, 0]]
    assert scale[:2, 0].tolist() == [1.0, 2.0]


def test_a_layer_counts_in_integers() -> None:
    model = small([[127.0, 1.0, 0.0], [0.0, -254.0, 2.0]], bias=[0.5, 100.0])
    assert quantize_linears(model) == 1
    # Weights are [127, 1, 0] by 1 and [0, -127, 1] by 2; the input is [2, -127, 64] by 1.
    given = torch.tensor([[2.0, -127.0, 64.4]])
    assert model.layer(given).tolist() == [
        [2 * 127 - 127 + 0.5, (127 * 127 + 64) * 2 + 100.0],
    ]


def test_a_layer_is_what_numpy_counts() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn((24, 40), generator=generator)
    given = torch.randn((2, 5, 40), generator=generator)
    model = small(weight)
    quantize_linears(model)

    def rounded(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.abs(rows).max(1, keepdims=True) / np.float32(127)
        return np.rint(rows / scale).astype(np.int64), scale

    inputs, in_scale = rounded(given.reshape(10, 40).numpy())
    weights, out_scale = rounded(weight.numpy())
    expected = (inputs @ weights.T) * in_scale.astype(np.float64) * out_scale.T
    found = model.layer(given)
    assert found.shape == (2, 5, 24)
    np.testing.assert_allclose(found.reshape(10, 24).numpy(), expected, rtol=1e-6, atol=1e-6)


def test_a_token_does_not_depend_on_its_batch() -> None:
    """One scale for all rows would round the small one away next to the large one."""
    generator = torch.Generator().manual_seed(5)
    model = small(torch.randn((300, 64), generator=generator))
    rows = torch.randn((3, 64), generator=generator) * torch.tensor([[1.0], [1e4], [1e-3]])
    exact = model.layer(rows)
    quantize_linears(model)
    together = model.layer(rows)
    for row in range(3):
        assert torch.equal(model.layer(rows[row : row + 1]), together[row : row + 1])
        error = (together[row] - exact[row]).norm() / exact[row].norm()
        assert 0.001 < error < 0.015


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_the_output_has_the_type_of_the_input(given: torch.dtype) -> None:
    model = small([[1.0, 2.0]])
    quantize_linears(model)
    model = model.to(torch.bfloat16)
    assert model.layer(torch.ones(4, 2, dtype=given)).dtype == given
    with torch.autocast("cpu", torch.bfloat16):
        # Weights 64 and 127 by 2 / 127; a scale in bfloat16 would give another number.
        assert model.layer(torch.ones(1, 2)).item() == pytest.approx(382 / 127, abs=1e-6)


def test_embeddings_norms_and_output_matrix_stay(toy_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(toy_model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    # Each of two layers: q, k, v, o, gate, up, down.
    assert quantize_linears(model) == 14
    kept = dict(model.named_parameters())
    assert {name.split(".")[-2] for name in kept} == {
        "embed_tokens",
        "lm_head",
        "input_layernorm",
        "post_attention_layernorm",
        "norm",
    }
    for name, value in kept.items():
        assert torch.equal(value, before[name])

    whole = AutoModelForCausalLM.from_pretrained(toy_model)
    assert quantize_linears(whole, output=True) == 15
    assert "lm_head.weight" not in dict(whole.named_parameters())


class WithInput(Small):
    """A model that reads numbers, with some channels a hundred times the others."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(values)
        return found


def test_weights_take_over_half_of_large_channels() -> None:
    """By hand: channels of 400 and 1 meet weights of 1 and 4; both become 20 x 20 and 2 x 2."""
    layer = small([[1.0, 4.0], [1.0, -4.0]]).layer
    model = WithInput(layer)
    quantize_linears(model, {"values": torch.tensor([[[-400.0, 1.0], [3.0, 0.5]]])})
    assert model.layer.weight.tolist() == [[127, 13], [127, -13]]  # 20, 2 by 20 / 127
    assert model.layer.scale.tolist() == [[pytest.approx(20 / 127)] * 2]

    generator = torch.Generator().manual_seed(9)
    sizes = torch.ones(64)
    sizes[5] = 100.0
    texts = torch.randn((2, 30, 64), generator=generator) * sizes
    weight = torch.randn((48, 64), generator=generator)
    exact = texts[1] @ weight.T
    errors = []
    for sample in (None, {"values": texts[0]}):
        model = WithInput(small(weight).layer)
        quantize_linears(model, sample)
        errors.append(float((model.layer(texts[1]) - exact).norm() / exact.norm()))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(("kind", "layers"), [("t5", 32), ("gpt2", 8)])
def test_other_architectures_come_to_nearly_the_same(
    kind: str, layers: int, seq2seq_folders: dict[str, Path]
) -> None:
    """T5 looks at the type of a weight, and GPT-2 keeps its weights transposed.

    A T5 layer has 4 matrices for each attention and 2 behind it, one of GPT-2 has 4 in all.
    """
    ids = torch.tensor([[5, 17, 40, 8, 100]])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if kind == "t5" else {})
    opener = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    model = opener.from_pretrained(seq2seq_folders[kind]).eval()
    with torch.inference_mode():
        exact = model(**inputs).logits
        assert quantize_linears(model) == layers
        found = model(**inputs).logits
    error = (found - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.05


def test_a_model_elsewhere_is_refused_with_the_way_out(toy_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(toy_model).to("meta")
    with pytest.raises(ModelError, match=r"on a CPU.*on meta; set reader\.quantize=none"):
        quantize_linears(model)


# readers


@pytest.fixture
def whole(causal: CausalReader, tmp_path: Path) -> Path:
    """A reader's folder with all weights in it."""
    causal.model.save_pretrained(tmp_path / "reader" / WEIGHTS)
    causal.tokenizer.save_pretrained(tmp_path / "reader" / WEIGHTS)
    return tmp_path / "reader"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_reader_in_int8_is_nearly_as_sure(
    precision: str,
    causal: CausalReader,
    causal_params: ReaderParams,
    whole: Path,
    passage: Callable[[str], Passage],
) -> None:
    training = causal_params.training.model_copy(update={"precision": precision})
    params = causal_params.model_copy(update={"quantize": "int8", "training": training})
    served = CausalReader(params, Path("nowhere"), whole)
    assert type(served.model.model.layers[1].mlp.up_proj).__name__ == "Int8Linear"
    assert served.model.model.embed_tokens.weight.dtype == getattr(torch, precision)
    assert served.device.type == "cpu"

    answers = [causal.answer_ids(text) for text in ("Captain Marlow", "9 days")]
    with torch.inference_mode():
        exact = torch.cat(causal.token_log_probabilities(SOURCES, answers))
        found = torch.cat(served.token_log_probabilities(SOURCES, answers))
    gap = (found - exact).abs().mean()
    assert 1e-4 < gap < (0.1 if precision == "float32" else 0.2)

    shown = [[passage(text) for text in source.passages] for source in SOURCES]
    again = CausalReader(params, Path("nowhere"), whole)
    asked = [source.question for source in SOURCES]
    assert again.answer(asked, shown) == served.answer(asked, shown)


def test_an_untuned_reader_stays_as_it_is(causal_params: ReaderParams, tmp_path: Path) -> None:
    """It is what training starts from, and what the tuned one is compared with."""
    reader = CausalReader(causal_params.model_copy(update={"quantize": "int8"}), tmp_path, None)
    assert type(reader.model.model.layers[1].mlp.up_proj) is torch.nn.Linear
