"""Questions that share their passages, packed behind one copy of them.

A row is `[passages][question 1 answer 1][question 2 answer 2]...`. Every question sees the passages
and itself, never its neighbours, and its positions go on where the passages end; so each gets the
same numbers as it would alone, while the passages, most of all tokens, are computed once. On the
demo corpus, with five questions to a document, training does a quarter of the work.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set
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


@dataclass(frozen=True)
class Cost:
    """Tokens of one source: `shared` names what other sources may have in common with it."""

    shared: Hashable
    shared_tokens: int
    own_tokens: int


def question_batches(costs: Sequence[Sequence[Cost]], batch_tokens: int) -> list[list[int]]:
    """Positions of questions in batches of about `batch_tokens`, each with all its sources.

    A batch grows by the question that adds the fewest tokens to it, because what it shares with
    those in the batch counts once; questions that share nothing come in their order. A question
    that is larger than a batch is a batch of its own.
    """
    readers: dict[Hashable, list[int]] = {}
    for i, own in enumerate(costs):
        for cost in own:
            readers.setdefault(cost.shared, []).append(i)
    left = dict.fromkeys(range(len(costs)))
    batches: list[list[int]] = []
    while left:
        first = next(iter(left))
        batch: list[int] = []
        seen: set[Hashable] = set()
        near = {first}
        total = 0
        while True:
            added, i = min((_added(costs[j], seen), j) for j in near or [next(iter(left))])
            if batch and total + added > batch_tokens:
                break
            batch.append(i)
            total += added
            del left[i]
            if not left:
                break
            new = {cost.shared for cost in costs[i]} - seen
            seen |= new
            near |= {j for shared in new for j in readers[shared]}
            near &= left.keys()
        batches.append(batch)
    return batches


def total_tokens(costs: Sequence[Sequence[Cost]]) -> int:
    """Tokens of these questions together, what they share counted once."""
    seen: set[Hashable] = set()
    total = 0
    for own in costs:
        total += _added(own, seen)
        seen |= {cost.shared for cost in own}
    return total


def _added(costs: Sequence[Cost], seen: Set[Hashable]) -> int:
    new = {cost.shared: cost.shared_tokens for cost in costs if cost.shared not in seen}
    return sum(new.values()) + sum(cost.own_tokens for cost in costs)


def alike_lengths(lengths: Sequence[int], share: float = 0.8) -> list[list[int]]:
    """Positions grouped so that none is shorter than `share` of the longest of its group."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and lengths[i] >= share * lengths[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


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
    """Pads rows on the right, to a multiple of 16."""
    import torch

    width = -(-max(row.length for row in rows) // 16) * 16
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
    return Packed(*(_moved(tensor, device) for tensor in (ids, positions, owners)))


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on `device`; a GPU fetches it from pinned memory while it works on."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
