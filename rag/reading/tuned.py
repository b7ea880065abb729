"""What train_reader left of a model, opened as it is served: an adapter, or weights that are whole.

    adapter/    a LoRA adapter; the base model that it names has to be there
    weights/    a complete transformers folder with its tokenizer: nothing else is needed

`rag.finetune.export` writes either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.params import ReaderParams
from rag.reading.quantized import quantize_linears, sample_inputs
from rag.weights import resolve_weights

if TYPE_CHECKING:
    import torch

ADAPTER, WEIGHTS = "adapter", "weights"
#: Below `weights/`: the tokenizer of what a model writes, where it reads with another.
ANSWER_TOKENIZER = "answer_tokenizer"


def whole_weights(folder: Path | None) -> Path | None:
    """The complete model below a reader's folder, where there is one."""
    return folder / WEIGHTS if folder is not None and (folder / WEIGHTS).is_dir() else None


def model_folder(params: ReaderParams, cache: Path, folder: Path | None) -> Path:
    """Where model and tokenizer are loaded from: the tuned ones if whole, else those of params.

    A reader that is whole is served where the model that it came from is not installed.
    """
    whole = whole_weights(folder)
    if whole is not None:
        return whole
    return resolve_weights(params.model, params.revision, cache).folder


def is_quantized(params: ReaderParams, folder: Path | None) -> bool:
    """Whether the reader is served in int8; one that is untuned, or in training, is not."""
    return folder is not None and params.quantize == "int8"


def serving_device(params: ReaderParams, folder: Path | None) -> torch.device:
    """The GPU where there is one, but for int8, which runs on a CPU: where it is judged too."""
    import torch

    on_gpu = torch.cuda.is_available() and not is_quantized(params, folder)
    return torch.device("cuda" if on_gpu else "cpu")


def loading_precision(params: ReaderParams, folder: Path | None, precision: str) -> torch.dtype:
    """What weights are loaded in: float32 where they are rounded to int8 next, else `precision`."""
    import torch

    found: torch.dtype = getattr(torch, "float32" if is_quantized(params, folder) else precision)
    return found


def as_served(
    model: Any,
    params: ReaderParams,
    folder: Path | None,
    device: torch.device,
    precision: str,
    *,
    tokenizers: Sequence[Any],
) -> Any:
    """`model` with the adapter below `folder`, in int8 where params say so, on `device`.

    `model` was loaded in `loading_precision`; what int8 leaves of it is served in `precision`.
    `tokenizers` are those of what it reads and, of an encoder-decoder, of what it writes.
    """
    import torch

    if folder is not None and whole_weights(folder) is None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model.to(device), str(folder / ADAPTER))
    if is_quantized(params, folder):
        model = model.merge_and_unload() if hasattr(model, "peft_config") else model
        quantize_linears(model, sample_inputs(*tokenizers))
        model = model.to(getattr(torch, precision))
    return model.to(device).eval()
