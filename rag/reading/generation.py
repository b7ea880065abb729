"""Decoding over packed rows: all beams of all questions about the same passages grow together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag.reading.packing import Row

if TYPE_CHECKING:
    import torch

    from rag.reading.causal import CausalReader


class PackedSteps:
    """The `Steps` of sources that are segments of packed rows.

    Each step appends one token for each beam of each segment behind the row. What a beam may see,
    its shared part, its own segment and its own past, is in the mask alone: beams that change
    places take their mask along, and no key or value is moved.
    """

    def __init__(self, reader: CausalReader, rows: Sequence[Row]) -> None:
        import torch
        from transformers import DynamicCache

        self._reader = reader
        self._packed = reader.packed(rows)
        self._cache = DynamicCache()
        slots = max(len(row.segments) for row in rows)
        self._shape = len(rows), slots  # (R, S)
        places = {
            member: (r, s) for r, row in enumerate(rows) for s, member in enumerate(row.members)
        }
        index = [places[member] for member in range(len(places))]
        self._segments = [(r, rows[r].starts()[s], rows[r].segments[s]) for r, s in index]
        self._read: torch.Tensor | None = None
        self._rows = torch.tensor([r for r, _ in index], device=reader.device)  # (N,)
        self._slots = torch.tensor([s for _, s in index], device=reader.device)  # (N,)
        last = torch.zeros(self._shape, dtype=torch.long)
        owners = torch.full(self._shape, -2)  # a slot without a segment sees nothing but itself
        for r, row in enumerate(rows):
            for s, (segment, start) in enumerate(zip(row.segments, row.starts(), strict=True)):
                last[r, s] = start + len(segment) - 1
                owners[r, s] = s + 1
        self._last = last.to(reader.device)
        self._positions = self._packed.positions.gather(1, self._last)  # (R, S)
        self._prompt_seen = self._packed.sees(owners.to(reader.device))  # (R, S, W)
        #: Which of the tokens appended so far each beam sees, (R, S, B, steps so far · S · B).
        self._past: torch.Tensor | None = None
        self._length = 0

    def query_likelihood(self) -> torch.Tensor:
        """log p of every question given its passages, shape (N,), but for its first token.

        The words of the prompt around it count as well: they are the same for every passage. To be
        called before `next`; reading the prompts, which `first` needs too, is done once.
        """
        import torch

        with torch.inference_mode():
            found = []
            for r, start, segment in self._segments:
                states = self._prompts()[r, start : start + len(segment) - 1]
                log_p = self._log_probabilities(states)
                asked = torch.tensor(segment[1:], device=log_p.device).unsqueeze(1)
                found.append(log_p.gather(1, asked).sum())
            return torch.stack(found)

    def _prompts(self) -> torch.Tensor:
        """What the model made of the prompts, shape (R, W, H)."""
        if self._read is None:
            self._read = self._states(
                self._packed.ids,
                self._reader.mask(self._packed.attention),
                self._packed.positions,
            )
        return self._read

    def first(self) -> torch.Tensor:
        states, self._read = self._prompts(), None
        chosen = self._last[self._rows, self._slots]
        return self._log_probabilities(states[self._rows, chosen])  # (N, V)

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        import torch

        (rows, slots), beams = self._shape, tokens.shape[1]
        device = self._reader.device
        ids = torch.zeros((rows, slots, beams), dtype=torch.long, device=device)
        ids[self._rows, self._slots] = tokens.to(device)
        itself = torch.eye(slots * beams, dtype=torch.bool, device=device)
        new = itself.view(1, slots, beams, slots * beams).expand(rows, -1, -1, -1)
        if self._past is None:
            self._past = new
        else:
            came_from = torch.zeros((rows, slots, beams), dtype=torch.long, device=device)
            came_from[self._rows, self._slots] = parents.to(device)
            wide = came_from.unsqueeze(-1).expand(-1, -1, -1, self._past.shape[-1])
            self._past = torch.cat([self._past.gather(2, wide), new], dim=-1)
        prompt = self._prompt_seen.unsqueeze(2).expand(-1, -1, beams, -1)
        seen = torch.cat([prompt, self._past], dim=-1).flatten(1, 2)  # (R, S · B, W + past)
        self._length += 1
        positions = self._positions.unsqueeze(2).expand(-1, -1, beams).flatten(1) + self._length
        states = self._states(ids.flatten(1), self._reader.mask(seen.unsqueeze(1)), positions)
        apart = states.view(rows, slots, beams, -1)
        return self._log_probabilities(apart[self._rows, self._slots])  # (N, B, V)

    def _states(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        with self._reader.autocast():
            states: torch.Tensor = self._reader.causal_model.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
            ).last_hidden_state
        return states

    def _log_probabilities(self, states: torch.Tensor) -> torch.Tensor:
        with self._reader.autocast():
            logits: torch.Tensor = self._reader.causal_model.lm_head(states)
        return logits.float().log_softmax(-1)
