"""The encoder under an extractive reader: loaded with what makes it quick on a CPU.

Matrix products are in bfloat16 where params say so, attention in float32 (`rag.reading.attention`),
and attention weights have no dropout, which would keep the fast kernel away
(`python benchmarks/reader_speed.py FILE --reader extractive` compares with neither of them).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.params import ReaderParams
from rag.reading.attention import attention_for
from rag.reading.tuned import as_served

if TYPE_CHECKING:
    import torch

#: What configurations call the dropout of attention weights; that of states stays.
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")


def load_span_model(
    source: Path, params: ReaderParams, folder: Path | None, device: torch.device, tokenizer: Any
) -> Any:
    """The model in `source`, with what `folder` adds; an untrained head where that is None."""
    model = _load(source, device)
    return as_served(model, params, folder, device, "float32", tokenizers=[tokenizer])


def _load(folder: Path, device: torch.device) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForQuestionAnswering

    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    for name in _ATTENTION_DROPOUT:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    # A fixed seed: an encoder without a head gets a new one, the same in every process.
    torch.manual_seed(0)
    return AutoModelForQuestionAnswering.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        attn_implementation=attention_for(device),
        trust_remote_code=False,
    )
