"""Linear layers in int8, for serving on a CPU: weights rounded once, inputs at every call.

Each output row of a weight has its own scale, and so has each token that comes in: a language
model's first token is often a hundred times larger than the rest, and one scale for all would round
the rest away ("vector-wise", Dettmers et al. 2022, LLM.int8). Some channels are as much larger than
the others, the same ones in every token; the weights take half of that over, by what a sample text
shows (Xiao et al. 2023, SmoothQuant). Products are sums of integers and so exact: a token comes to
the same whatever else is in its batch and however many threads run.

Embeddings and norms stay as they are, and so does the output matrix unless it is asked for:
`benchmarks/reader_export.py` prints what each is worth. torch's own `quantize_dynamic` is
deprecated, has one scale for a whole batch and takes float32 alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rag.errors import ModelError

if TYPE_CHECKING:
    import torch

_LARGEST = 127
#: Scale of a row of zeros, which any scale fits.
_SMALLEST_SCALE = 1e-12
#: Channels that the sample hardly uses are not scaled up further than this.
_SMALLEST_INPUT = 1e-3
_SAMPLE = (
    "Archaeologists found 3 bronze coins (about 210 BC) near Lake Victoria; in 1998 the museum of "
    "Nairobi bought them for $4,000.\n\nQuestion: Which museum bought the coins?\nAnswer: "
)


def sample_inputs(tokenizer: Any, answer_tokenizer: Any = None) -> dict[str, Any]:
    """Inputs of a model for a text like those that it will read, ids of shape (1, T)."""
    ids = {"input_ids": tokenizer(_SAMPLE, return_tensors="pt").input_ids}
    if answer_tokenizer is not None:
        ids["decoder_input_ids"] = answer_tokenizer(_SAMPLE, return_tensors="pt").input_ids
    return ids


def quantize_linears(
    model: Any, sample: Mapping[str, Any] | None = None, *, output: bool = False
) -> int:
    """Replaces the linear layers of `model` in place, and returns how many there were.

    `sample` are inputs from which large channels are known; `output` takes the output matrix too.
    An adapter has to be merged before. Raises ModelError for a model that is not on a CPU.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    if model.device.type != "cpu":
        raise ModelError(
            f"int8 layers run on a CPU, and the model is on {model.device}; "
            "set reader.quantize=none to serve it there"
        )
    head = None if output else _output_layer(model)
    kind = _int8_linear()
    found = [
        (name, module, isinstance(module, Conv1D))
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
    seen = _largest_inputs(model, [module for _, module, _ in found], sample)
    for name, module, transposed in found:
        weight = module.weight.T if transposed else module.weight  # (out, in)
        parent, _, own = name.rpartition(".")
        layer = kind(weight.detach().float(), module.bias, seen.get(module))
        setattr(model.get_submodule(parent), own, layer)
    return len(found)


def round_rows(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (N, D) as int8 (N, D) and the scale (N, 1) that gives them back."""
    import torch

    scale = values.abs().amax(dim=1, keepdim=True).clamp(min=_SMALLEST_SCALE) / _LARGEST
    return (values / scale).round().to(torch.int8), scale


def _largest_inputs(
    model: Any, layers: Sequence[Any], sample: Mapping[str, Any] | None
) -> dict[Any, torch.Tensor]:
    """The largest magnitude of each input channel (in,) of the layers that the sample reaches."""
    import torch

    seen: dict[Any, torch.Tensor] = {}

    def look(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        largest = inputs[0].float().abs().flatten(0, -2).amax(0)
        seen[layer] = torch.maximum(largest, seen[layer]) if layer in seen else largest

    if sample is not None:
        handles = [layer.register_forward_pre_hook(look) for layer in layers]
        with torch.inference_mode():
            model.eval()(**sample)
        for handle in handles:
            handle.remove()
    return seen


def _output_layer(model: Any) -> Any:
    """The matrix that makes logits of states, or the head that a span model ends with."""
    found = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return found if found is not None else getattr(model, "qa_outputs", None)


def _int8_linear() -> type[torch.nn.Module]:
    import torch

    class Int8Linear(torch.nn.Module):
        """What `torch.nn.Linear` computes, up to rounding; output in the type of its input."""

        def __init__(
            self, weight: torch.Tensor, bias: torch.Tensor | None, largest: torch.Tensor | None
        ) -> None:
            super().__init__()
            self.share = None  # of each input channel that stays with the input, (in,)
            if largest is not None:
                taken = largest.clamp(min=_SMALLEST_INPUT) / weight.abs().amax(0).clamp(
                    min=_SMALLEST_INPUT
                )
                self.share = taken.rsqrt()
                weight = weight * taken.sqrt()
            # Models that look at the type of their weights know int8 under this name.
            self.weight, scale = round_rows(weight)  # (out, in)
            # No buffers: a later change of the model's type would round them.
            self.scale = scale.T.contiguous()  # (1, out)
            self.bias = None if bias is None else bias.detach().float()
            self.out_features, self.in_features = self.weight.shape

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            rows = values.reshape(-1, self.in_features).float()
            rounded, scale = round_rows(rows if self.share is None else rows * self.share)
            product = torch._int_mm(rounded, self.weight.T) * self.scale * scale
            if self.bias is not None:
                product += self.bias
            return product.to(values.dtype).view(*values.shape[:-1], self.out_features)

        def extra_repr(self) -> str:
            return f"in_features={self.in_features}, out_features={self.out_features}"

    return Int8Linear
