"""What an encoder made of its sources, and the decoder that attends to it token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from rag.reading.seq2seq import Seq2SeqReader


@dataclass(frozen=True)
class EncoderStates:
    """Of N sources: `hidden` (N, S, H), and `mask` (N, S), 1 where there is a token."""

    hidden: torch.Tensor
    mask: torch.Tensor

    def take(self, places: torch.Tensor) -> EncoderStates:
        """The states of the sources at `places` (M,), in that order; one may come repeatedly."""
        return EncoderStates(self.hidden[places], self.mask[places])


def joined(sources: Sequence[Sequence[torch.Tensor]]) -> EncoderStates:
    """Sources of several inputs each, states (S_i, H): one after the other, without padding.

    This is the fusion in the decoder: it attends over all inputs of a source at once (Izacard and
    Grave 2021, "Leveraging Passage Retrieval with Generative Models for Open Domain QA").
    """
    import torch

    rows = [torch.cat(list(parts)) for parts in sources]
    hidden = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=hidden.device)
    places = torch.arange(hidden.shape[1], device=hidden.device)
    return EncoderStates(hidden, (places < lengths.unsqueeze(1)).long())


def padded(
    rows: Sequence[Sequence[int]], padding_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, both (N, T), padded on the right."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)


class EncoderDecoderSteps:
    """The `Steps` of a decoder over encoder states: the past is cached, and moves with its beam.

    What the decoder's layers make of the encoder's states is the same for every beam of a source;
    it is computed once, and copied where one beam becomes several.
    """

    def __init__(self, reader: Seq2SeqReader, states: EncoderStates) -> None:
        self._reader = reader
        self._states = states
        self._sources = len(states.mask)
        self._beams = 1
        self._past: Any = None

    def first(self) -> torch.Tensor:
        import torch

        start = torch.full((self._sources, 1), self._reader.start_id, device=self._reader.device)
        return self._step(start)

    def next(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        import torch

        beams = tokens.shape[1]
        offsets = torch.arange(self._sources, device=parents.device).unsqueeze(1) * self._beams
        rows = (offsets + parents).flatten()  # (N * beams,)
        if beams != self._beams:
            self._past.cross_attention_cache.reorder_cache(rows)
            self._states = self._states.take(rows)
        if (beams, self._beams) != (1, 1):
            self._past.self_attention_cache.reorder_cache(rows)
        self._beams = beams
        return self._step(tokens.reshape(-1, 1)).view(self._sources, beams, -1)

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        """log p of what comes after `tokens` (N * beams, 1), shape (N * beams, V)."""
        output = self._reader.decode(self._states, tokens, past=self._past, use_cache=True)
        self._past = output.past_key_values
        log_p: torch.Tensor = output.logits[:, -1].float().log_softmax(-1)
        return log_p
