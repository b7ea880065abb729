"""Greedy decoding over packed rows: all questions about the same passages grow side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag.reading.packing import Row, to_tensors

if TYPE_CHECKING:
    from rag.reading.causal import CausalReader

Generated = dict[int, tuple[list[int], float]]
"""By member: token ids up to the end of the turn, and their mean log probability."""


def generate(reader: CausalReader, rows: Sequence[Row], max_new_tokens: int) -> Generated:
    """The likeliest continuation of every segment, token by token.

    Each step appends one token for each segment behind the row: shape (R, S), with S the most
    segments of any row. A new token sees the shared part, its own segment and its own past.
    """
    import torch
    from transformers import DynamicCache

    device, end = reader.device, reader.tokenizer.eos_token_id
    packed = to_tensors(rows, reader.tokenizer.pad_token_id, device)
    slots = max(len(row.segments) for row in rows)
    last = torch.zeros((len(rows), slots), dtype=torch.long)
    owners = torch.full((len(rows), slots), -2)  # a slot without a segment sees nothing but itself
    for r, row in enumerate(rows):
        for s, (segment, start) in enumerate(zip(row.segments, row.starts(), strict=True)):
            last[r, s] = start + len(segment) - 1
            owners[r, s] = s + 1
    last, owners = last.to(device), owners.to(device)
    present = owners > 0
    positions = packed.positions.gather(1, last)
    prompt_seen = packed.sees(owners)  # (R, S, W)
    itself = torch.eye(slots, dtype=torch.bool, device=device).expand(len(rows), slots, slots)
    chosen: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    finished = ~present
    cache = DynamicCache()
    inputs = {
        "input_ids": packed.ids,
        "attention_mask": reader.mask(packed.attention),
        "position_ids": packed.positions,
    }
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=reader.mixed_precision),
    ):
        for step in range(max_new_tokens):
            hidden = reader.causal_model.model(
                **inputs, past_key_values=cache, use_cache=True
            ).last_hidden_state
            if step == 0:
                hidden = hidden.gather(1, last.unsqueeze(2).expand(-1, -1, hidden.shape[2]))
            logits = reader.causal_model.lm_head(hidden).float().log_softmax(-1)
            score, token = logits.max(-1)
            chosen.append(token.masked_fill(finished, end))
            scores.append(score.masked_fill(finished, 0.0))
            finished = finished | (token == end)
            if bool(finished.all()):
                break
            seen = torch.cat([prompt_seen, itself.repeat(1, 1, step + 1)], dim=2)
            inputs = {
                "input_ids": chosen[-1],
                "attention_mask": reader.mask(seen.unsqueeze(1)),
                "position_ids": positions + step + 1,
            }
    return _collect(rows, torch.stack(chosen, 2).tolist(), torch.stack(scores, 2).tolist(), end)


def _collect(
    rows: Sequence[Row], tokens: list[list[list[int]]], scores: list[list[list[float]]], end: int
) -> Generated:
    found: Generated = {}
    for r, row in enumerate(rows):
        for s, member in enumerate(row.members):
            ids = tokens[r][s]
            length = ids.index(end) + 1 if end in ids else len(ids)
            found[member] = ids[:length], sum(scores[r][s][:length]) / length
    return found
