"""Random models that read and write: a BART, a T5, and a GPT-2 to put behind a tiny BERT.

Weights are ten times as large as usual, so that different inputs give clearly different outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TEXTS = (
    "Answer in a few words copied from the text, or say unanswerable.",
    "Answer in a few words, or say unanswerable.",
    "Question: Who commands the Seafox? Answer: Captain Marlow",
    "The Seafox sails from Elgin under Captain Marlow. Every March it is docked for 9 days.",
)


def write_tiny_bart(folder: Path, *, seed: int = 4, dropout: float = 0.0) -> Path:
    """Answers are `<s> ... </s>`, and the decoder starts from `</s>`, as BART's do."""
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = _tokenizer(["<s>", "<pad>", "</s>"], "<s> $A </s>", bos_token="<s>")
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=256,
        dropout=dropout,
        init_std=0.2,
        forced_eos_token_id=None,
        forced_bos_token_id=None,
    )
    return _write(folder, BartForConditionalGeneration, config, tokenizer, seed)


def write_tiny_t5(folder: Path, *, seed: int = 6) -> Path:
    """Answers are `... </s>`, and the decoder starts from `<pad>`, as T5's do."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = _tokenizer(["<pad>", "</s>"], "$A </s>")
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        initializer_factor=1.5,
        decoder_start_token_id=0,
    )
    return _write(folder, T5ForConditionalGeneration, config, tokenizer, seed)


def write_tiny_gpt2(folder: Path, *, hidden: int = 48, seed: int = 5) -> Path:
    """A decoder alone, of another width than the tiny BERT, with one token for start and end."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _tokenizer(["</s>"], None, bos_token="</s>", pad_token=None)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=hidden,
        n_layer=2,
        n_head=4,
        n_positions=256,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _write(folder, GPT2LMHeadModel, config, tokenizer, seed)


def _write(folder: Path, kind: Any, config: Any, tokenizer: Any, seed: int) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(special: Sequence[str], template: str | None, **tokens: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS * 3, trainer)
    if template is not None:
        places = [(token, tokenizer.token_to_id(token)) for token in special if token in template]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=places
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{"eos_token": "</s>", "pad_token": "<pad>"} | tokens
    )
