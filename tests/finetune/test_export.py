"""What a trained reader is written as: it answers as before, alone, and with the same bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rag.errors import InputError, ModelError
from rag.finetune.adapters import add_lora
from rag.finetune.export import export_reader, merged, save_tuned
from rag.params import ReaderParams
from rag.reading.causal import CausalReader
from rag.reading.extractive import ExtractiveReader
from rag.reading.generative import Source
from rag.reading.reader import write_manifest
from rag.reading.seq2seq import Seq2SeqReader
from tests.tiny_seq2seq import write_tiny_bart, write_tiny_gpt2
from tests.toy import run_python, toy_params

TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "extractive": "FEATURE_EXTRACTION"}
READERS: Mapping[str, Any] = {
    "causal": CausalReader,
    "seq2seq": Seq2SeqReader,
    "extractive": ExtractiveReader,
}
TEXT = "The Seafox sails from Elgin under Captain Marlow."
SOURCES = (Source("Who commands the Seafox?", (TEXT,)), Source("What did it cost?", ()))


@pytest.fixture
def models(toy_model: Path, tiny_bert: Path, tmp_path: Path) -> Callable[[str], ReaderParams]:
    """Params of a reader, whose models lie in a folder `base` that can be taken away."""

    def make(kind: str) -> ReaderParams:
        base = tmp_path / "base"
        chosen = [f"reader.kind={kind.partition(' ')[0]}", f"reader.model={base / 'model'}"]
        if kind == "causal":
            shutil.copytree(toy_model, base / "model")
        elif kind == "extractive":
            shutil.copytree(tiny_bert, base / "model")
            chosen += ["reader.fusion=joint", "reader.stride_tokens=9"]
        elif kind == "seq2seq":
            write_tiny_bart(base / "model")
        else:
            shutil.copytree(tiny_bert, base / "model")
            write_tiny_gpt2(base / "decoder")
            chosen.append(f"reader.decoder={base / 'decoder'}")
        return toy_params(*chosen).reader

    return make


def changed(params: ReaderParams, **values: Any) -> ReaderParams:
    return params.model_copy(update=values)


def adapted(params: ReaderParams, cache: Path) -> Any:
    """A reader with an adapter that changes what it says, as a training leaves it."""
    assert params.lora is not None
    reader = READERS[params.kind](params, cache, None)
    reader.model = add_lora(
        reader.model,
        params.lora,
        task=TASKS[params.kind],
        name=params.model,
        seed=1,
        also_trained=("qa_outputs",) if params.kind == "extractive" else (),
    ).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in reader.model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
    return reader


def outputs(reader: Any) -> torch.Tensor:
    """What a reader makes of two sources: log p of answers' tokens, or logits of spans."""
    with torch.inference_mode():
        if isinstance(reader, ExtractiveReader):
            readings = reader.read([source.question for source in SOURCES], [TEXT, TEXT])
            both = torch.stack(reader.logits(readings))
            return both[both.isfinite()]
        answers = [reader.answer_ids(text) for text in ("Captain Marlow", "")]
        return torch.cat(reader.token_log_probabilities(SOURCES, answers))


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["causal", "seq2seq", "seq2seq of two", "extractive"])
def test_a_merged_reader_says_the_same_where_its_base_is_not_installed(
    kind: str, models: Callable[[str], ReaderParams], tmp_path: Path
) -> None:
    params = models(kind)
    reader, folder = adapted(params, tmp_path), tmp_path / "reader"
    expected = outputs(reader)
    save_tuned(reader.model, folder, params, reader.tokenizers)
    assert [path.name for path in folder.iterdir()] == ["adapter"]
    assert (folder / "adapter/adapter_model.safetensors").stat().st_mode & 0o777 == 0o644
    again = READERS[params.kind](params, tmp_path, folder)
    torch.testing.assert_close(outputs(again), expected, atol=1e-5, rtol=0)
    with again.model.disable_adapter():
        untuned = outputs(again)
    assert (untuned - expected).abs().max() > 0.05

    whole = changed(params, export="merged")
    save_tuned(reader.model, folder, whole, reader.tokenizers)
    assert [path.name for path in folder.iterdir()] == ["weights"]
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelError):
        READERS[params.kind](whole, tmp_path, None)
    served = READERS[params.kind](whole, tmp_path, folder)
    assert not isinstance(served.model, PeftModel)
    torch.testing.assert_close(outputs(served), expected, atol=1e-5, rtol=0)
    # An adapter is merged before its base is rounded, so int8 comes to the same from either.
    small = READERS[params.kind](changed(whole, quantize="int8"), tmp_path, folder)
    gap = (outputs(small) - expected).abs().max()
    assert 1e-5 < gap < 0.5


def test_in_bfloat16_the_sum_is_rounded_once(
    models: Callable[[str], ReaderParams], tmp_path: Path
) -> None:
    params = models("causal")
    training = params.training.model_copy(update={"precision": "bfloat16"})
    params = changed(params, training=training, export="merged")
    reader = adapted(params, tmp_path)
    layer = reader.causal_model.model.layers[1].mlp.up_proj
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (layer.base_layer.weight.dtype, down.dtype) == (torch.bfloat16, torch.float32)
    # alpha / rank = 32 / 8
    expected = (layer.base_layer.weight.double() + 4 * up.double() @ down.double()).bfloat16()
    save_tuned(reader.model, tmp_path / "reader", params, reader.tokenizers)
    weights = load_file(tmp_path / "reader" / "weights" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    found = weights["model.layers.1.mlp.up_proj.weight"]
    # Where float32 and float64 differ by a hair at a tie, one may round up.
    assert (found != expected).float().mean() < 0.001
    assert (found - expected).abs().max() <= expected.abs().max() * 2**-8


def test_a_model_without_an_adapter_is_merged_already(toy_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(toy_model)
    assert merged(model) is model


@pytest.mark.parametrize("kind", ["causal", "seq2seq of two", "extractive"])
def test_files_are_a_function_of_the_weights(
    kind: str, models: Callable[[str], ReaderParams], tmp_path: Path
) -> None:
    params = changed(models(kind), export="merged")
    written = []
    for name in ("here", "there"):
        reader = adapted(params, tmp_path)
        if name == "there":
            outputs(reader)  # a tokenizer remembers what it cut last
        save_tuned(reader.model, tmp_path / name, params, reader.tokenizers)
        written.append(contents(tmp_path / name))
    assert written[0] == written[1]
    expected = {
        "weights/config.json",
        "weights/model.safetensors",
        "weights/tokenizer.json",
        "weights/tokenizer_config.json",
    }
    if kind != "extractive":
        expected.add("weights/generation_config.json")
    if kind == "seq2seq of two":
        expected |= {
            "weights/answer_tokenizer/tokenizer.json",
            "weights/answer_tokenizer/tokenizer_config.json",
        }
    assert set(written[0]) == expected
    for content in written[0].values():
        assert str(tmp_path).encode() not in content
        assert b"transformers_version" not in content
    assert (tmp_path / "here/weights/model.safetensors").stat().st_mode & 0o777 == 0o644

    # Trained as a whole, it is the same kind of folder.
    full = changed(params, lora=None, export="adapter")
    reader = READERS[params.kind](full, tmp_path, None)
    save_tuned(reader.model, tmp_path / "full", full, reader.tokenizers)
    assert set(contents(tmp_path / "full")) == expected
    again = READERS[params.kind](full, tmp_path, tmp_path / "full")
    assert torch.equal(outputs(again), outputs(reader))


PLAIN = """
import json, sys
sys.modules["peft"] = None  # as if it were not installed
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
print(json.dumps(model(**tokenizer(text, return_tensors="pt")).logits[0, -1].tolist()))
"""


@pytest.mark.integration
def test_plain_transformers_open_a_merged_reader(
    models: Callable[[str], ReaderParams], tmp_path: Path
) -> None:
    params = changed(models("causal"), export="merged")
    reader = adapted(params, tmp_path)
    ids = reader.tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.inference_mode():
        expected = reader.model(input_ids=ids).logits[0, -1]
    save_tuned(reader.model, tmp_path / "reader", params, reader.tokenizers)
    shutil.rmtree(tmp_path / "base")
    arguments = [str(tmp_path / "reader" / "weights"), TEXT]
    done = run_python(tmp_path, f"import sys; sys.argv[1:] = {arguments!r}\n{PLAIN}")
    done.check_returncode()
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected, atol=1e-5, rtol=0)


def test_a_reader_is_copied_out_by_hand(
    models: Callable[[str], ReaderParams], tmp_path: Path
) -> None:
    params = models("causal")
    reader, folder = adapted(params, tmp_path), tmp_path / "reader"
    save_tuned(reader.model, folder, params, reader.tokenizers)
    write_manifest(folder, kind="causal", model=params.model)
    small = changed(params, quantize="int8")

    assert export_reader(small, tmp_path, folder, tmp_path / "out", merge=False) == "adapter"
    assert contents(tmp_path / "out") == contents(folder / "adapter")
    assert export_reader(small, tmp_path, folder, tmp_path / "whole", merge=True) == "weights"
    # The same as the stage would have written.
    save_tuned(
        reader.model, tmp_path / "other", changed(params, export="merged"), reader.tokenizers
    )
    assert contents(tmp_path / "whole") == contents(tmp_path / "other" / "weights")
    # What is whole is copied; the base model is not asked for.
    shutil.rmtree(tmp_path / "base")
    other, copy = tmp_path / "other", tmp_path / "copy"
    assert export_reader(params, tmp_path, other, copy, merge=False) == "weights"
    assert contents(copy) == contents(other / "weights")
    with pytest.raises(InputError, match="copy exists already"):
        export_reader(params, tmp_path, other, copy, merge=False)
