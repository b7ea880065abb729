"""Questions that share their passages, packed behind one copy of them.

A row is `[passages][question 1 answer 1][question 2 answer 2]...`. Every question sees the passages
and itself, never its neighbours, and its positions go on where the passages end; so each gets the
same numbers as it would alone, while the passages, most of all tokens, are computed once. On the
demo corpus, with five questions to a document, training does a quarter of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PADDING, _SHARED = -1, 0

TokenIds = tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """Token ids: `shared` is the same for every question about the same passages."""

    shared: TokenIds
    own: TokenIds


@dataclass(frozen=True)
class Row:
    """One packed sequence: `segments[i]` belongs to the example at position `members[i]`."""

    shared: TokenIds
    segments: tuple[TokenIds, ...]
    members: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.shared) + sum(map(len, self.segments))

    def starts(self) -> list[int]:
        """Where each segment begins."""
        position, starts = len(self.shared), []
        for segment in self.segments:
            starts.append(position)
            position += len(segment)
        return starts


def pack(prompts: Sequence[Prompt], answers: Sequence[Sequence[int]], max_tokens: int) -> list[Row]:
    """Rows of at most `max_tokens` (a single question may exceed it), by first appearance."""
    open_rows: dict[TokenIds, list[int]] = {}
    room: dict[TokenIds, int] = {}
    rows: list[Row] = []

    def close(shared: TokenIds) -> None:
        members = open_rows.pop(shared)
        segments = tuple((*prompts[i].own, *answers[i]) for i in members)
        rows.append(Row(shared, segments, tuple(members)))

    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        size = len(prompt.own) + len(answer)
        if prompt.shared in open_rows and room[prompt.shared] < size:
            close(prompt.shared)
        if prompt.shared not in open_rows:
            open_rows[prompt.shared] = []
            room[prompt.shared] = max_tokens - len(prompt.shared)
        open_rows[prompt.shared].append(i)
        room[prompt.shared] -= size
    for shared in list(open_rows):
        close(shared)
    return rows


@dataclass(frozen=True)
class Packed:
    """Rows as tensors. R rows of W tokens: ids and positions (R, W), attention (R, 1, W, W)."""

    ids: torch.Tensor
    positions: torch.Tensor
    owners: torch.Tensor
    """-1 padding, 0 the shared part, s + 1 segment s; shape (R, W)."""

    @property
    def attention(self) -> torch.Tensor:
        """True where the row's token sees the column's; padding sees itself, to stay finite."""
        import torch

        width = self.ids.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.ids.device).tril()
        seen = self.sees(self.owners) & causal
        itself = torch.eye(width, dtype=torch.bool, device=self.ids.device)
        return (seen | itself).unsqueeze(1)

    def sees(self, viewers: torch.Tensor) -> torch.Tensor:
        """Whether a token of owner `viewers` (R, V) may see each token of the row: (R, V, W)."""
        owners = self.owners.unsqueeze(1)
        return (owners == _SHARED) | ((owners == viewers.unsqueeze(2)) & (owners != _PADDING))


def to_tensors(rows: Sequence[Row], padding_id: int, device: torch.device) -> Packed:
    """Pads rows on the right."""
    import torch

    width = -(-max(row.length for row in rows) // 64) * 64
    ids = torch.full((len(rows), width), padding_id)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    owners = torch.full((len(rows), width), _PADDING)
    for r, row in enumerate(rows):
        offset = len(row.shared)
        ids[r, :offset] = torch.tensor(row.shared, dtype=torch.long)
        positions[r, :offset] = torch.arange(offset)
        owners[r, :offset] = _SHARED
        for s, (segment, start) in enumerate(zip(row.segments, row.starts(), strict=True)):
            stop = start + len(segment)
            ids[r, start:stop] = torch.tensor(segment)
            positions[r, start:stop] = torch.arange(offset, offset + len(segment))
            owners[r, start:stop] = s + 1
    return Packed(ids.to(device), positions.to(device), owners.to(device))
