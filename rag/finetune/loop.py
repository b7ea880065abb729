"""The one training loop.

A `Trainable` says what an example costs and what its loss is; the loop owns order, schedule,
clipping, dev evaluation, the best state and checkpoints. A killed run that finds its checkpoint
goes on from it and, on a CPU, ends with the same weights bit for bit: batch order depends on seed
and epoch alone, and the random number generator is part of the checkpoint.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rag.errors import TrainingError
from rag.finetune.checkpoint import load_checkpoint, save_checkpoint
from rag.params import TrainingParams
from rag.retrieval.encoder import token_batches

if TYPE_CHECKING:
    import torch

Log = Callable[[Mapping[str, float], int], None]
#: Examples that are sorted by length together: enough for little padding, few enough for batches
#: that differ from epoch to epoch.
_BUCKET = 64


class Trainable(Protocol):
    """A model with its examples."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each example, or of each row of examples: what batches are made by."""

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """The tensors that are trained, by name; all others stay as they are."""

    def names(self, batch: Sequence[int]) -> Sequence[str]:
        """What a person knows these examples by, for messages."""

    def loss(self, batch: Sequence[int]) -> torch.Tensor:
        """Mean loss of these examples, a scalar with gradient."""

    def evaluate(self) -> Mapping[str, float]:
        """Dev metrics; the first one decides which state is best (higher is better)."""

    def train_mode(self, training: bool) -> None:
        """Switches dropout and the like."""


@dataclass(frozen=True)
class TrainingSummary:
    """What training came to; the trainable holds the best state when the loop returns."""

    steps: int
    best_step: int
    best_metrics: Mapping[str, float]
    seconds: float
    resumed_from: int


def train(
    trainable: Trainable,
    params: TrainingParams,
    *,
    seed: int,
    log: Log,
    checkpoint: Path | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> TrainingSummary:
    """Trains for `params.epochs` and leaves the state of the best dev evaluation in place.

    `log(metrics, step)` gets the mean loss since the last call and the dev metrics; `tick(step,
    steps)` is for a progress bar. `checkpoint` names a folder to resume from and to save to.
    """
    import torch

    if not trainable.lengths:
        raise TrainingError("no training examples: check the train split of the questions")
    started = time.monotonic()
    torch.manual_seed(seed)
    batches = _epochs(trainable.lengths, params, seed)
    total = len(batches)
    parameters = dict(trainable.parameters())
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=params.learning_rate, weight_decay=params.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_then_linear(step, total, params.warmup_share)
    )
    evaluation_steps = {
        round(total * (i + 1) / params.evaluations) for i in range(params.evaluations)
    }
    state = load_checkpoint(checkpoint, parameters, optimizer, scheduler, log)
    resumed_from = state.step
    losses: list[float] = []
    trainable.train_mode(True)
    for step, batch in enumerate(batches, start=1):
        if step <= state.step:
            continue
        loss = trainable.loss(batch)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {step}: the loss is {loss.item()}; lower reader.training.learning_rate or "
                f"look at the examples {', '.join(trainable.names(batch))}"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), params.gradient_clip)
        learning_rate = scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if tick is not None:
            tick(step, total)
        due = step in evaluation_steps or step == total
        if due or step % 5 == 0:
            row = {
                "loss": sum(losses) / len(losses),
                "learning_rate": float(learning_rate),
                "epoch": params.epochs * step / total,
            }
            state = state.record(row, step, log)
            losses.clear()
        if due:
            trainable.train_mode(False)
            metrics = dict(trainable.evaluate())
            trainable.train_mode(True)
            state = state.record(metrics, step, log).keep_best(parameters, metrics, step)
            save_checkpoint(checkpoint, state, parameters, optimizer, scheduler)
        if step < total and _is_over(started, params.max_minutes):
            raise TrainingError(
                f"step {step} of {total}: reader.training.max_minutes ({params.max_minutes}) is "
                "over; raise it, or lower epochs or prepare.max_train_questions"
            )
    trainable.train_mode(False)
    state.restore_best(parameters)
    return TrainingSummary(
        total, state.best_step, state.best_metrics, time.monotonic() - started, resumed_from
    )


def _epochs(lengths: Sequence[int], params: TrainingParams, seed: int) -> list[list[int]]:
    """The batches of all epochs in their order: the same for the same seed, whenever asked."""
    return [
        batch
        for epoch in range(params.epochs)
        for batch in length_buckets(lengths, params.batch_tokens, seed + epoch)
    ]


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


def _is_over(started: float, max_minutes: float | None) -> bool:
    return max_minutes is not None and time.monotonic() - started > max_minutes * 60


def _warm_then_linear(step: int, total: int, warmup_share: float) -> float:
    warmup = max(1, round(total * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))
