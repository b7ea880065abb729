"""The models of the seq2seq reader: one of one piece, or an encoder and a decoder put together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import ModelError
from rag.params import ReaderParams
from rag.reading.tuned import (
    ANSWER_TOKENIZER,
    as_served,
    loading_precision,
    model_folder,
    whole_weights,
)
from rag.weights import resolve_weights

if TYPE_CHECKING:
    import torch

Options = Mapping[str, Any]
"""What `from_pretrained` takes besides the folder."""


@dataclass(frozen=True)
class Seq2SeqModel:
    """A model with the tokenizers of what its encoder reads and of what its decoder writes."""

    model: Any
    source_tokenizer: Any
    answer_tokenizer: Any
    start_id: int
    """The token that the decoder reads first."""
    end_id: int
    """The token that ends an answer."""


def load_seq2seq(
    params: ReaderParams, cache: Path, folder: Path | None, device: torch.device
) -> Seq2SeqModel:
    """The untuned model for `folder` None, else with the weights or the adapter in it.

    Raises ModelError where a model is not what its place asks for.
    """
    source = model_folder(params, cache, folder)
    # Trained as a whole, weights keep float32: steps are too small for bfloat16.
    precision = params.training.precision if params.lora is not None else "float32"
    options = {
        "dtype": loading_precision(params, folder, precision),
        # Not the float32 attention of `rag.reading.attention`: transformers makes no padding mask
        # for an implementation that it does not know, and T5 adds its own bias to that mask.
        "attn_implementation": "sdpa",
    }
    if params.decoder is None:
        loaded = _one_piece(params, source, options)
    elif whole_weights(folder) is not None:
        loaded = _joined_before(params.decoder, source, options)
    else:
        loaded = _two_pieces(params, params.decoder, source, options, cache)
    tokenizers = [loaded.source_tokenizer, loaded.answer_tokenizer]
    model = as_served(loaded.model, params, folder, device, precision, tokenizers=tokenizers)
    return replace(loaded, model=model)


def _one_piece(params: ReaderParams, source: Path, options: Options) -> Seq2SeqModel:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    config = AutoConfig.from_pretrained(source)
    if not config.is_encoder_decoder:
        raise ModelError(
            f"model {params.model!r} is of type {config.model_type}, which is no encoder-decoder; "
            "name another, or give reader.decoder, a causal model to put behind it"
        )
    model = AutoModelForSeq2SeqLM.from_pretrained(source, **options)
    tokenizer = AutoTokenizer.from_pretrained(source)
    start = model.generation_config.decoder_start_token_id
    if start is None:
        raise ModelError(f"model {params.model!r}: its config has no decoder_start_token_id")
    end = _end_id(tokenizer, params.model)
    return Seq2SeqModel(model, tokenizer, tokenizer, int(start), end)


def _two_pieces(
    params: ReaderParams, decoder_name: str, base: Path, options: Options, cache: Path
) -> Seq2SeqModel:
    """`EncoderDecoderModel`: the decoder gets cross-attention, new weights of a fixed seed."""
    import torch
    from transformers import AutoTokenizer

    decoder_base = resolve_weights(decoder_name, params.decoder_revision, cache).folder
    tokenizer = AutoTokenizer.from_pretrained(decoder_base)
    start, end = _start_id(tokenizer, decoder_name), _end_id(tokenizer, decoder_name)
    # The random numbers of whoever called are not touched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _joined_model(params, decoder_name, base, decoder_base, options)
    model.config.decoder_start_token_id = start
    model.config.eos_token_id = end
    model.config.pad_token_id = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return Seq2SeqModel(model, AutoTokenizer.from_pretrained(base), tokenizer, start, end)


def _joined_before(decoder_name: str, source: Path, options: Options) -> Seq2SeqModel:
    """Two pieces that were trained together and written down as one folder."""
    from transformers import AutoTokenizer, EncoderDecoderModel

    model = EncoderDecoderModel.from_pretrained(source, **options)
    tokenizer = AutoTokenizer.from_pretrained(source / ANSWER_TOKENIZER)
    start, end = _start_id(tokenizer, decoder_name), _end_id(tokenizer, decoder_name)
    return Seq2SeqModel(model, AutoTokenizer.from_pretrained(source), tokenizer, start, end)


def _joined_model(
    params: ReaderParams, decoder_name: str, base: Path, decoder_base: Path, options: Options
) -> Any:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, EncoderDecoderModel

    encoder = AutoModel.from_pretrained(base, **options)
    if encoder.config.is_encoder_decoder:
        raise ModelError(
            f"model {params.model!r} of type {encoder.config.model_type} has a decoder already; "
            f"leave out reader.decoder ({decoder_name!r}), or name an encoder: bundled:minilm"
        )
    config = AutoConfig.from_pretrained(decoder_base)
    config.is_decoder = config.add_cross_attention = True
    decoder = AutoModelForCausalLM.from_pretrained(decoder_base, config=config, **options)
    if "encoder_hidden_states" not in inspect.signature(decoder.forward).parameters:
        raise ModelError(
            f"decoder {decoder_name!r} of type {config.model_type} cannot attend to an encoder; "
            "GPT-2, BERT and their kin can"
        )
    return EncoderDecoderModel(encoder=encoder, decoder=decoder).to(options["dtype"])


def _start_id(tokenizer: Any, name: str) -> int:
    first = (tokenizer.bos_token_id, tokenizer.cls_token_id)
    return next((int(token) for token in first if token is not None), _end_id(tokenizer, name))


def _end_id(tokenizer: Any, name: str) -> int:
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise ModelError(f"model {name!r}: its tokenizer has no token that ends an answer")
    return int(end)
