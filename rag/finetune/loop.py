"""The one training loop.

A `Trainable` says what its batches and its loss are; the loop owns schedule, clipping, dev
evaluation, early stopping, the best state and checkpoints. A killed run that finds its checkpoint
goes on from it and, on a CPU, ends with the same weights bit for bit: batches depend on seed and
epoch alone, and the random number generator is part of the checkpoint.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rag.errors import TrainingError
from rag.finetune.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rag.params import LoopParams
from rag.retrieval.encoder import token_batches

if TYPE_CHECKING:
    import torch

Log = Callable[[Mapping[str, float], int], None]
#: Examples that are sorted by length together: enough for little padding, few enough for batches
#: that differ from epoch to epoch.
_BUCKET = 64


class Trainable(Protocol):
    """A model with its examples."""

    def epoch_batches(self, epoch: int, seed: int) -> Sequence[Sequence[int]]:
        """The batches of an epoch, as positions of examples: a function of epoch and seed."""

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
    """What training came to; the trainable holds the best state when the loop returns.

    `steps` were planned and `last_step` is how far it went: less where it stopped early.
    """

    steps: int
    last_step: int
    best_step: int
    best_metrics: Mapping[str, float]
    seconds: float
    resumed_from: int


def train(
    trainable: Trainable,
    params: LoopParams,
    *,
    seed: int,
    log: Log,
    checkpoint: Path | None = None,
    tick: Callable[[int, int], None] | None = None,
    section: str = "reader.training",
    start: Mapping[str, float] | None = None,
) -> TrainingSummary:
    """Trains for `params.epochs` and leaves the state of the best dev evaluation in place.

    `log(metrics, step)` gets the mean loss since the last call and the dev metrics; `tick(step,
    steps)` is for a progress bar. `checkpoint` names a folder to resume from and to save to,
    `section` the parameters, for messages. Where `start` gives the dev metrics of the untrained
    state, that state counts, as step 0: it is left in place unless a later one is better.
    """
    import torch

    started = time.monotonic()
    torch.manual_seed(seed)
    batches = [
        batch for epoch in range(params.epochs) for batch in trainable.epoch_batches(epoch, seed)
    ]
    if not batches:
        raise TrainingError("no training examples: check the train split of the questions")
    total = len(batches)
    parameters = dict(trainable.parameters())
    optimizer, scheduler = _optimizer(parameters, params, total)
    evaluation_steps = _evaluation_steps(total, params.evaluations)
    state = load_checkpoint(checkpoint, parameters, optimizer, scheduler, log)
    resumed_from = state.step
    losses: list[float] = []
    if start is not None and not state.rows:
        state = state.record(start, 0, log).keep_best(parameters, start, 0)
    trainable.train_mode(True)
    for step, batch in enumerate(batches, start=1):
        if step <= state.step:
            continue
        if _is_stale(state, evaluation_steps, params.patience):
            break
        loss = trainable.loss(batch)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {step}: the loss is {loss.item()}; lower {section}.learning_rate or "
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
        due = step in evaluation_steps
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
                f"step {step} of {total}: {section}.max_minutes ({params.max_minutes}) is "
                "over; raise it, or lower epochs or prepare.max_train_questions"
            )
    trainable.train_mode(False)
    state.restore_best(parameters)
    if tick is not None:
        tick(total, total)
    return TrainingSummary(
        steps=total,
        last_step=state.step,
        best_step=state.best_step,
        best_metrics=state.best_metrics,
        seconds=time.monotonic() - started,
        resumed_from=resumed_from,
    )


def _optimizer(
    parameters: Mapping[str, torch.nn.Parameter], params: LoopParams, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    import torch

    optimizer = torch.optim.AdamW(
        parameters.values(), lr=params.learning_rate, weight_decay=params.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_then_linear(step, total, params.warmup_share)
    )
    return optimizer, scheduler


def _evaluation_steps(total: int, evaluations: int) -> set[int]:
    """Evenly spaced, the last one at the end."""
    return {round(total * (i + 1) / evaluations) for i in range(evaluations)} | {total}


def _is_stale(state: Checkpoint, evaluation_steps: Set[int], patience: int | None) -> bool:
    """Whether the last `patience` evaluations were no better than the best one."""
    since = [step for step in evaluation_steps if state.best_step < step <= state.step]
    return patience is not None and len(since) >= patience


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
