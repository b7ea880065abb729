"""What frozen layers make of a batch, computed once and remembered for the next epochs.

Layers below `lora.frozen_layers` see the same rows in every epoch and answer the same. Their states
are kept in memory, up to a limit, by the rows of a forward pass: a batch is the same rows in every
epoch, so a state is always that of the same computation and resuming stays exact to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rag.reading.causal import CausalReader
from rag.reading.packing import Packed, Row

if TYPE_CHECKING:
    import torch


class FrozenLayers:
    """The states of a causal reader, in two parts; call it in the place of `reader.states`."""

    def __init__(self, reader: CausalReader, frozen: int, limit_bytes: int) -> None:
        self._reader = reader
        self._limit = limit_bytes
        self._used = 0
        self._known: dict[tuple[Row, ...], torch.Tensor] = {}
        model = reader.causal_model.model
        self._lower = _part(model, model.layers[:frozen], last=False)
        self._upper = _part(model, model.layers[frozen:], last=True)

    def __call__(self, rows: Sequence[Row], packed: Packed) -> torch.Tensor:
        """States (R, W, H) that the output matrix reads, with gradient in the upper layers."""
        mask = self._reader.mask(packed.attention)
        upper: torch.Tensor = self._upper(
            inputs_embeds=self._frozen(rows, packed, mask),
            attention_mask=mask,
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state
        return upper

    def _frozen(self, rows: Sequence[Row], packed: Packed, mask: torch.Tensor) -> torch.Tensor:
        import torch

        key = tuple(rows)
        if key in self._known:
            return self._known[key].to(packed.ids.device)
        with torch.no_grad():
            states: torch.Tensor = self._lower(
                input_ids=packed.ids,
                attention_mask=mask,
                position_ids=packed.positions,
                use_cache=False,
            ).last_hidden_state
        size = states.numel() * states.element_size()
        if self._used + size <= self._limit:
            self._known[key] = states.cpu()
            self._used += size
        return states


def can_split(reader: CausalReader, frozen: int, rows: Sequence[Row]) -> bool:
    """Whether both parts together give this model's own states, tried on `rows`.

    Some architectures scale embeddings or change layers by their number, and do not.
    """
    import torch

    packed = reader.packed(rows)
    with torch.no_grad(), reader.autocast():
        whole = reader.states(rows, packed)
        split = FrozenLayers(reader, frozen, 0)(rows, packed)
    return torch.equal(whole, split)


def _part(model: Any, layers: Any, *, last: bool) -> Any:
    """The same decoder with these layers alone; weights are shared, not copied."""
    import torch

    part = copy.copy(model)
    part._modules = {**model._modules, "layers": layers}
    if not last:
        part._modules["norm"] = torch.nn.Identity()
    return part
