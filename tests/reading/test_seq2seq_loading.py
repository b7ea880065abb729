"""What the seq2seq reader reads and writes, and what it is loaded from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rag.errors import ModelError
from rag.params import ReaderParams
from rag.reading.generative import Source, TokenIds
from rag.reading.prompts import REFUSAL, Example, conversation, flat
from rag.reading.reader import load_reader, write_manifest
from rag.reading.seq2seq import Seq2SeqReader
from tests.toy import toy_params

MakeReader = Callable[..., Seq2SeqReader]
MakeParams = Callable[..., ReaderParams]
KINDS = ("bart", "t5", "pair")
PASSAGES = (
    "The Seafox sails from Elgin under Captain Marlow.",
    "Every March the Seafox is docked for 9 days.",
)
ASKED = ("Who commands the Seafox?", "What did it cost?")
SOURCES = (
    Source(ASKED[0], PASSAGES[:1]),
    Source(ASKED[0], PASSAGES),
    Source(ASKED[1], ()),
)


# texts


def text(tokenizer: Any, ids: TokenIds) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def test_inputs_are_the_prompt_between_special_tokens(make_seq2seq: MakeReader) -> None:
    concat, fid = make_seq2seq("bart"), make_seq2seq("bart", "reader.fusion=fid")
    [whole] = concat.inputs(SOURCES[1])
    assert text(concat.tokenizer, whole) == f"<s>{''.join(flat(conversation(*astuple(1))))}</s>"
    apart = fid.inputs(SOURCES[1])
    assert [text(fid.tokenizer, ids) for ids in apart] == [
        f"<s>{''.join(flat(conversation(ASKED[0], [one])))}</s>" for one in PASSAGES
    ]
    [closed] = fid.inputs(SOURCES[2])
    assert text(fid.tokenizer, closed) == f"<s>{''.join(flat(conversation(ASKED[1], [])))}</s>"


def astuple(place: int) -> tuple[str, tuple[str, ...]]:
    return SOURCES[place].question, SOURCES[place].passages


def test_examples_stand_in_front(seq2seq_params: MakeParams, tmp_path: Path) -> None:
    example = Example("Who rests?", ("Nobody rests.",), "")
    reader = Seq2SeqReader(seq2seq_params("t5"), tmp_path, None, examples=[example])
    [ids] = reader.inputs(SOURCES[2])
    told = "".join(flat(conversation(ASKED[1], [], [example])))
    assert text(reader.tokenizer, ids) == f"{told}</s>"


def test_passages_are_cut_to_fit_and_the_question_is_kept(make_seq2seq: MakeReader) -> None:
    long = Source(ASKED[0], PASSAGES * 20)
    short, cut = make_seq2seq("bart"), make_seq2seq("bart", "reader.max_prompt_tokens=1000")
    [ids] = short.inputs(long)
    assert len(ids) == short.params.max_prompt_tokens
    end = text(short.tokenizer, ids).removesuffix("</s>")
    assert end.endswith(flat(conversation(*astuple(0)))[1])
    # The model has learned 256 positions, whatever params allow.
    [ids] = cut.inputs(long)
    assert len(ids) == 256


def test_a_question_longer_than_the_prompt_is_cut_in_front(make_seq2seq: MakeReader) -> None:
    reader = make_seq2seq("t5")
    [ids] = reader.inputs(Source("Who " * 300, PASSAGES))
    assert len(ids) == reader.params.max_prompt_tokens
    assert text(reader.tokenizer, ids).endswith("Who \nAnswer:</s>")


@pytest.mark.parametrize(("kind", "written"), [("bart", "<s>{}</s>"), ("t5", "{}</s>")])
def test_answer_ids_are_those_the_model_was_trained_on(
    kind: str, written: str, make_seq2seq: MakeReader
) -> None:
    reader = make_seq2seq(kind)
    assert text(reader.tokenizer, reader.answer_ids("9 days")) == written.format("9 days")
    long = reader.answer_ids("Captain Marlow " * 20)
    assert len(long) == reader.params.max_answer_tokens
    assert long[-1] == reader.end_id
    refusal = make_seq2seq(kind, "reader.max_answer_tokens=99").answer_ids("")
    assert text(reader.tokenizer, refusal) == written.format(REFUSAL)


def test_a_pair_reads_and_writes_with_its_own_tokenizers(make_seq2seq: MakeReader) -> None:
    reader = make_seq2seq("pair")
    assert text(reader.tokenizer, reader.answer_ids("9 days")) == "9 days</s>"
    assert reader.start_id == reader.end_id == 0
    [ids] = reader.inputs(Source("who rests", ("the red boat",)))
    bert = reader._source_tokenizer
    assert (ids[0], ids[-1]) == (bert.cls_token_id, bert.sep_token_id)
    assert "the red boat" in text(bert, ids)


# loading


def test_cross_attention_is_new_and_the_same_every_time(make_seq2seq: MakeReader) -> None:
    torch.manual_seed(1)
    first = make_seq2seq("pair").model
    state = torch.random.get_rng_state()
    second = make_seq2seq("pair").model
    assert torch.equal(torch.random.get_rng_state(), state)
    names = [name for name, _ in first.named_parameters() if "crossattention" in name]
    assert names
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_new_modules_are_those_that_no_folder_has(
    make_seq2seq: MakeReader, seq2seq_folders: dict[str, Path]
) -> None:
    from safetensors.torch import load_file

    stored: set[str] = set()
    for name in ("bert", "gpt2"):
        weights = load_file(seq2seq_folders[name] / "model.safetensors")
        stored |= {key.removeprefix("transformer.") for key in weights}
    reader = make_seq2seq("pair")
    added = [
        name
        for name, _ in reader.model.named_parameters()
        if name.removeprefix("decoder.").removeprefix("encoder.").removeprefix("transformer.")
        not in stored
    ]
    assert {part for name in added for part in name.split(".")} >= set(reader.new_modules)
    assert all(set(reader.new_modules) & set(name.split(".")) for name in added)
    assert make_seq2seq("narrow").new_modules == ("crossattention", "ln_cross_attn")
    assert make_seq2seq("t5").new_modules == ()


def test_the_decoder_keeps_its_weights(
    make_seq2seq: MakeReader, seq2seq_folders: dict[str, Path]
) -> None:
    from transformers import AutoModelForCausalLM

    gpt2 = AutoModelForCausalLM.from_pretrained(seq2seq_folders["gpt2"]).state_dict()
    decoder = make_seq2seq("pair").model.decoder.state_dict()
    assert all(torch.equal(value, decoder[name]) for name, value in gpt2.items())


@pytest.mark.parametrize("kind", KINDS)
def test_whole_weights_come_back(
    kind: str, make_seq2seq: MakeReader, seq2seq_params: MakeParams, tmp_path: Path
) -> None:
    reader = make_seq2seq(kind)
    with torch.no_grad():
        for parameter in reader.model.parameters():
            parameter.mul_(0.9)
    weights = tmp_path / "tuned" / "weights"
    reader.model.save_pretrained(weights)
    for name, tokenizer in reader.tokenizers.items():
        tokenizer.save_pretrained(weights / name)
    write_manifest(tmp_path / "tuned", kind="seq2seq", model=reader.params.model)
    again: Any = load_reader(seq2seq_params(kind), tmp_path, tmp_path / "tuned")
    assert_same(reader, again)
    with pytest.raises(AssertionError):
        assert_same(make_seq2seq(kind), again)


def assert_same(first: Seq2SeqReader, second: Seq2SeqReader) -> None:
    answer = first.answer_ids("Captain Marlow")
    with torch.inference_mode():
        [expected] = first.token_log_probabilities(SOURCES[:1], [answer])
        [found] = second.token_log_probabilities(SOURCES[:1], [answer])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_comes_back(
    kind: str, make_seq2seq: MakeReader, seq2seq_params: MakeParams, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    lora = "reader.lora={rank: 2, alpha: 4, frozen_layers: 0}"
    reader = make_seq2seq(kind, lora)
    modules = {"bart": ["q_proj"], "t5": ["q"], "pair": ["c_attn"]}[kind]
    torch.manual_seed(0)
    reader.model = get_peft_model(
        reader.model,
        LoraConfig(r=2, target_modules=modules, task_type="SEQ_2_SEQ_LM", init_lora_weights=False),
    ).eval()
    reader.model.save_pretrained(str(tmp_path / "tuned" / "adapter"))
    again = Seq2SeqReader(seq2seq_params(kind, lora), tmp_path, tmp_path / "tuned")
    assert_same(reader, again)
    with pytest.raises(AssertionError):
        assert_same(make_seq2seq(kind, lora), again)


def test_bfloat16_is_near(make_seq2seq: MakeReader) -> None:
    """Matrix products in bfloat16; probabilities are computed in float32."""
    plain, mixed = make_seq2seq("bart"), make_seq2seq("bart", "reader.training.precision=bfloat16")
    answer = plain.answer_ids("Captain Marlow")
    with torch.inference_mode():
        [expected] = plain.token_log_probabilities(SOURCES[:1], [answer])
        [found] = mixed.token_log_probabilities(SOURCES[:1], [answer])
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.3, rtol=0)


@pytest.mark.parametrize(
    ("model", "decoder", "said"),
    [
        ("bert", None, "of type bert, which is no encoder-decoder"),
        ("bart", "gpt2", "has a decoder already"),
        ("bert", "llama", "of type llama cannot attend to an encoder"),
    ],
)
def test_a_model_in_the_wrong_place_is_named(
    model: str, decoder: str | None, said: str, seq2seq_folders: dict[str, Path], tmp_path: Path
) -> None:
    names = [f"reader.model={seq2seq_folders[model]}"]
    names += [f"reader.decoder={seq2seq_folders[decoder]}"] if decoder else []
    params = toy_params("reader.kind=seq2seq", *names).reader
    with pytest.raises(ModelError, match=said):
        Seq2SeqReader(params, tmp_path, None)
