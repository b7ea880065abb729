"""Attention on a CPU: in float32, although all else is in bfloat16.

Scores and their softmax keep float32's precision, and on a CPU that costs nothing: forward and
backward take as long as in bfloat16, while matrix products are three times faster in bfloat16
(`python benchmarks/attention.py`). So each has its own precision.

Where a step of decoding asks few queries of many keys, query heads that share a key head are taken
as more queries of it: the same numbers, without a copy of every key and value for every head, which
takes many times as long as attention itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "sdpa_float32"


def attention_for(device: torch.device) -> str:
    """The attention implementation to load a model with."""
    if device.type != "cpu":
        return "sdpa"
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _float32_attention)
    # Without a mask of its own, an attention that transformers does not know sees padding.
    AttentionMaskInterface.register(NAME, _float32_mask)
    return NAME


def additive(seen: torch.Tensor) -> torch.Tensor:
    """A float32 mask to add to attention scores: 0 where `seen`, -inf elsewhere."""
    import torch

    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, -torch.inf)


def _float32_mask(*arguments: Any, **options: Any) -> torch.Tensor | None:
    """The mask that a model makes itself, to be added to float32 scores."""
    import torch
    from transformers.masking_utils import sdpa_mask

    seen = sdpa_mask(*arguments, **options)
    if seen is None:
        return None
    # Finite, because a row of padding may see nothing at all.
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, lowest)


def _float32_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    dtype = query.dtype
    mask = None if attention_mask is None else attention_mask.float()
    with torch.autocast(query.device.type, enabled=False):
        if mask is not None and query.shape[2] < key.shape[2] and not module.training:
            output = of_few_queries(query, key, value, mask, options.get("scaling"))
        else:
            output, _ = sdpa_attention_forward(
                module, query.float(), key.float(), value.float(), mask, **options
            )
    return output.to(dtype), None


def of_few_queries(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """Attention of queries (B, H, Q, D) over keys of fewer heads (B, G, K, D): (B, Q, H, D)."""
    import torch

    batch, heads, queries, size = query.shape
    shared = heads // key.shape[1]
    output = torch.nn.functional.scaled_dot_product_attention(
        query.float().reshape(batch, key.shape[1], shared * queries, size),
        key.float(),
        value.float(),
        attn_mask=mask.expand(batch, 1, queries, key.shape[2]).repeat(1, 1, shared, 1),
        scale=scaling,
    )
    return output.reshape(batch, heads, queries, size).transpose(1, 2)
