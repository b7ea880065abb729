"""Attention on a CPU against the formula, where heads share keys and queries are few."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AttentionInterface

from rag.reading.attention import NAME, attention_for

HEADS, KEY_HEADS, KEYS, SIZE = 6, 2, 11, 8


@pytest.mark.parametrize("queries", [1, 4, KEYS])
@pytest.mark.parametrize("training", [False, True])
def test_attention_is_the_softmax_of_scaled_scores(queries: int, training: bool) -> None:
    assert attention_for(torch.device("cpu")) == NAME
    generator = torch.Generator().manual_seed(queries)
    query = torch.randn(3, HEADS, queries, SIZE, generator=generator)
    key = torch.randn(3, KEY_HEADS, KEYS, SIZE, generator=generator)
    value = torch.randn(3, KEY_HEADS, KEYS, SIZE, generator=generator)
    seen = torch.rand(3, 1, queries, KEYS, generator=generator) > 0.4
    seen[..., 0] = True
    mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    module = torch.nn.Module().train(training)
    module.num_key_value_groups = HEADS // KEY_HEADS  # type: ignore[assignment]
    module.is_causal = True  # type: ignore[assignment]

    attend = AttentionInterface()[NAME]
    found, _ = attend(module, query, key, value, mask, scaling=1 / math.sqrt(SIZE), dropout=0.0)

    assert found.shape == (3, queries, HEADS, SIZE)
    for head in range(HEADS):
        # Query heads 0-2 read key head 0, heads 3-5 key head 1.
        k, v = (part[:, head // (HEADS // KEY_HEADS)] for part in (key, value))
        scores = query[:, head] @ k.transpose(1, 2) / math.sqrt(SIZE) + mask[:, 0]
        torch.testing.assert_close(found[:, :, head], scores.softmax(-1) @ v)
