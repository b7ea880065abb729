"""Attention's processor time on a CPU, forward and backward, by precision and kind of mask.

    python benchmarks/attention.py

One layer of SmolLM2-135M over one packed row: 9 heads of 64, 455 tokens. Attention costs the same
in both precisions, so `rag/reading/attention.py` takes the exact one; matrix products do not.
Then a step of decoding, 3 queries of each of 16 rows of 800 keys: with a copy of the 3 key heads
for each of the 9 query heads, as transformers does it, and without.
"""

from __future__ import annotations

import time

import torch

HEADS, TOKENS, SIZE = 9, 455, 64
REPEATS = 15


def main() -> None:
    seen = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool).tril()
    for dtype in (torch.bfloat16, torch.float32):
        added = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -torch.inf)
        for name, mask in (("truth values", seen), ("additive", added)):
            print(f"{dtype!s:15} mask of {name:13} {milliseconds(dtype, mask):6.1f} ms")
    fast, slow = (product_milliseconds(dtype) for dtype in (torch.bfloat16, torch.float32))
    copied, shared = decoding_milliseconds()
    print(f"decoding, keys copied for each head {copied:6.1f} ms, not copied {shared:6.1f} ms")
    print(f"matrix product {TOKENS} x 576 x 1536: bfloat16 is {slow / fast:.1f} times faster")


def milliseconds(dtype: torch.dtype, mask: torch.Tensor) -> float:
    """Processor time of one forward and backward pass."""
    shape = (1, HEADS, TOKENS, SIZE)
    parts = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(shape, dtype=dtype)

    def once() -> None:
        attended = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask)
        attended.backward(gradient)

    return average(once)


def decoding_milliseconds() -> tuple[float, float]:
    """Processor time of a decoding step's attention by transformers' function and by ours."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from rag.reading.attention import of_few_queries

    module = torch.nn.Module()
    module.num_key_value_groups = 3  # type: ignore[assignment]
    module.is_causal = True  # type: ignore[assignment]
    query = torch.randn(16, HEADS, 3, SIZE).bfloat16()
    key, value = (torch.randn(16, HEADS // 3, 800, SIZE).bfloat16() for _ in range(2))
    mask = torch.zeros(16, 1, 3, 800)
    mask[..., ::3] = -torch.inf

    def copied() -> None:
        sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask)

    return average(copied), average(lambda: of_few_queries(query, key, value, mask, None))


def product_milliseconds(dtype: torch.dtype) -> float:
    left, right = torch.randn(TOKENS, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    return average(lambda: left @ right.T)


def average(call: object) -> float:
    assert callable(call)
    call()
    started = time.process_time()
    for _ in range(REPEATS):
        call()
    return (time.process_time() - started) / REPEATS * 1000


if __name__ == "__main__":
    main()
