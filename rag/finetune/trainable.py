"""What the training loop needs to know: a model with its examples, and their batches."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rag.retrieval.encoder import token_batches

if TYPE_CHECKING:
    import torch

#: Examples that are sorted by length together: enough for little padding, few enough for batches
#: that differ from epoch to epoch.
_BUCKET = 64


@dataclass(frozen=True)
class Loss:
    """The loss of a batch as a sum, so that sums over batches give the mean of all of them."""

    total: torch.Tensor
    """Sum over what `weight` counts, a scalar with gradient."""
    weight: float
    """What the mean is over: answer tokens, or questions."""
    tokens: int = 0
    """Tokens that went through the model, without padding."""
    padded_tokens: int = 0
    """The same with the padding of shorter rows; 0 where it is not counted."""


class Trainable(Protocol):
    """A model with its examples; gradient checkpointing is its own to switch on."""

    def epoch_batches(self, epoch: int, seed: int) -> Sequence[Sequence[int]]:
        """The batches of an epoch, as positions of examples: a function of epoch and seed."""

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """The tensors that are trained, by name; all others stay as they are."""

    def rates(self) -> Mapping[str, float]:
        """Learning rates by name, as multiples of the params' own; 1 where absent."""

    def names(self, batch: Sequence[int]) -> Sequence[str]:
        """What a person knows these examples by, for messages."""

    def loss(self, batch: Sequence[int]) -> Loss:
        """Loss of these examples, summed."""

    def size(self, batch: Sequence[int]) -> int:
        """What the memory of a batch grows with: its tokens, padding included."""

    def halves(self, batch: Sequence[int]) -> Sequence[Sequence[int]]:
        """What to train in the place of a batch that is too large; empty where nothing is smaller.

        Two parts whose losses add up to the batch's; or, where a loss depends on the whole batch,
        the batch itself after making ready to compute it in smaller pieces.
        """

    def models(self) -> Sequence[torch.nn.Module]:
        """The transformers in it, whose layers can be compiled and sharded.

        While they are sharded, each `loss` has to run every layer equally often.
        """

    def evaluate(self) -> Mapping[str, float]:
        """Dev metrics; the first one decides which state is best (higher is better)."""

    def train_mode(self, training: bool) -> None:
        """Switches dropout and the like."""


def halved(batch: Sequence[int]) -> Sequence[Sequence[int]]:
    """`Trainable.halves` of examples that do not depend on each other."""
    middle = (len(batch) + 1) // 2
    return (batch[:middle], batch[middle:]) if len(batch) > 1 else ()


def length_buckets(lengths: Sequence[int], batch_tokens: int, seed: int) -> list[list[int]]:
    """Batches of examples of similar length, in random order: little padding, little bias.

    Longest times count stays within `batch_tokens`; a longer example is a batch of its own.
    """
    generator = random.Random(seed)
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), _BUCKET):
        bucket = sorted(order[start : start + _BUCKET], key=lambda i: (-lengths[i], i))
        batches += [
            [bucket[i] for i in batch]
            for batch in token_batches([lengths[i] for i in bucket], batch_tokens)
        ]
    generator.shuffle(batches)
    return batches
