"""The one training loop.

A `Trainable` says what its batches and its loss are; the loop owns seed, schedule, accumulation,
clipping, dev evaluation, early stopping, the best state, checkpoints and the work of several
processes. A killed run that finds its checkpoint goes on from it and, on a CPU, ends with the same
weights bit for bit: batches depend on seed and epoch alone, and the random number generators are
part of the checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rag.errors import TrainingError
from rag.finetune.checkpoint import Checkpoint, Log, Tally, load_checkpoint, save_checkpoint
from rag.finetune.optimizer import (
    adamw,
    clip_gradients,
    rate_share,
    set_learning_rate,
    sum_gradients,
)
from rag.finetune.sharding import sharded, transformer_layers
from rag.finetune.step import FAILED, Failure, StepGradient, save_failures
from rag.finetune.trainable import Loss, Trainable, length_buckets
from rag.finetune.workers import World, world
from rag.params import LoopParams
from rag.reading.memory import give_back

__all__ = ["Log", "Loss", "Trainable", "TrainingSummary", "length_buckets", "train"]
#: Steps between two rows of the curve.
_ROW_STEPS = 5


@dataclass(frozen=True)
class TrainingSummary:
    """What training came to; the trainable holds the best state when the loop returns.

    `steps` were planned and `last_step` is how far it went: less where it stopped early. `trained`
    is what this process saw, in `seconds` without those of dev evaluations and checkpoints: a run
    that went on from a checkpoint counts from there.
    """

    steps: int
    last_step: int
    best_step: int
    best_metrics: Mapping[str, float]
    seconds: float
    resumed_from: int
    trained: Tally


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
    say: Callable[[str], None] = print,
) -> TrainingSummary:
    """Trains for `params.epochs` and leaves the state of the best dev evaluation in place.

    `log(metrics, step)` gets the mean loss since the last call and the dev metrics; `tick(step,
    steps)` is for a progress bar, `say` for a line that a person should read. `checkpoint` names a
    folder to resume from and to save to, `section` the parameters, for messages. Where `start`
    gives the dev metrics of the untrained state, that state counts, as step 0: it is left in place
    unless a later one is better. Each of several workers (`workers.joined`) calls it alike; while
    weights are sharded only the main one's trainable is whole again afterwards.
    """
    import torch

    workers = world()
    torch.manual_seed(seed + workers.rank)
    steps = planned_steps(trainable, params, seed, workers)
    with ExitStack() as stack:
        workers.copy_from_main([p.detach() for p in trainable.parameters().values()])
        layers = transformer_layers(trainable.models()) if params.compile else []
        for layer in layers:
            layer.compile(dynamic=True)
        is_sharded = params.shard_weights and workers.size > 1
        if is_sharded:
            stack.enter_context(sharded(trainable.models(), workers))
        run = _Run(
            trainable,
            params,
            steps,
            workers,
            log=log,
            checkpoint=checkpoint,
            section=section,
            is_sharded=is_sharded,
        )
        return run.to_the_end(workers.agreed(start), tick, say)


class _Run:
    """One training: what stays the same from step to step."""

    def __init__(
        self,
        trainable: Trainable,
        params: LoopParams,
        steps: Sequence[Sequence[Sequence[int]]],
        workers: World,
        *,
        log: Log,
        checkpoint: Path | None,
        section: str,
        is_sharded: bool,
    ) -> None:
        self._trainable, self._params, self._steps = trainable, params, steps
        self._workers, self._is_sharded = workers, is_sharded
        self._log, self._checkpoint, self._section = log, checkpoint, section
        self._parameters = dict(trainable.parameters())
        self._optimizer = adamw(self._parameters, trainable.rates(), params)

    def to_the_end(
        self,
        start: Mapping[str, float] | None,
        tick: Callable[[int, int], None] | None,
        say: Callable[[str], None],
    ) -> TrainingSummary:
        params, total = self._params, len(self._steps)
        started = saved = time.monotonic()
        seconds, trained = 0.0, Tally()
        evaluation_steps = _evaluation_steps(total, params.evaluations)
        state = load_checkpoint(
            self._checkpoint, self._parameters, self._optimizer, self._log, self._workers
        )
        resumed_from = state.step
        gradient = StepGradient(
            self._trainable,
            self._parameters,
            say=say,
            section=self._section,
            too_large=state.too_large,
            may_cut=not self._is_sharded,
        )
        if start is not None and not state.rows:
            state = state.record(start, 0, self._log).keep_best(self._parameters, start, 0)
        self._trainable.train_mode(True)
        for step in range(state.step + 1, total + 1):
            if _is_stale(state, evaluation_steps, params.patience):
                break
            begun = time.monotonic()
            tally = self._step(step, gradient)
            seconds += time.monotonic() - begun
            trained += tally
            state = replace(
                state,
                step=step,
                since_row=state.since_row + tally,
                too_large=gradient.too_large,
            )
            if tick is not None:
                tick(step, total)
            is_due = step in evaluation_steps
            if is_due or step % _ROW_STEPS == 0:
                state = replace(state.record(self._row(state), step, self._log), since_row=Tally())
                give_back()
            if is_due:
                state = self._evaluated(state)
            is_time, is_over = self._workers.agreed(
                (
                    _has_passed(saved, params.checkpoint_minutes),
                    _has_passed(started, params.max_minutes),
                )
            )
            if is_due or is_time:
                save_checkpoint(
                    self._checkpoint, state, self._parameters, self._optimizer, self._workers
                )
                saved = time.monotonic()
            if step < total and is_over:
                raise TrainingError(
                    f"step {step} of {total}: {self._section}.max_minutes ({params.max_minutes}) "
                    "is over; raise it, or lower epochs or prepare.max_train_questions"
                )
        self._trainable.train_mode(False)
        state.restore_best(self._parameters)
        if tick is not None:
            tick(total, total)
        return TrainingSummary(
            steps=total,
            last_step=state.step,
            best_step=state.best_step,
            best_metrics=state.best_metrics,
            seconds=seconds,
            resumed_from=resumed_from,
            trained=trained,
        )

    def _learning_rate(self, step: int) -> float:
        params = self._params
        share = rate_share(step - 1, len(self._steps), params.schedule, params.warmup_share)
        return params.learning_rate * share

    def _step(self, step: int, gradient: StepGradient) -> Tally:
        """One update of the weights, from the mean gradient over all of the step's batches."""
        workers, batches = self._workers, self._steps[step - 1]
        own = Tally()
        for batch in batches[workers.rank :: workers.size]:
            own += gradient.add(batch)
        if self._is_sharded and workers.rank >= len(batches) % workers.size > 0:
            # The last step may have too few batches; the layers need every worker.
            gradient.add(batches[0], counted=False)
        loss, weight, *counts = workers.totals(own.values())
        tally = Tally(loss, weight, *map(int, counts))
        if not math.isfinite(loss):
            failures = [one for some in workers.gathered(gradient.failures) for one in some]
            raise self._refused(step, f"the loss is {loss / weight}", failures)
        sum_gradients(self._parameters.values(), workers)
        for parameter in self._parameters.values():
            if parameter.grad is not None:
                parameter.grad.div_(weight)
        norm = clip_gradients(self._parameters.values(), self._params.gradient_clip, workers)
        if not math.isfinite(norm):
            questions = [list(self._trainable.names(batch)) for batch in batches]
            failures = [{"loss": None, "questions": names} for names in questions]
            raise self._refused(step, f"the norm of the gradient is {norm}", failures)
        set_learning_rate(self._optimizer, self._learning_rate(step))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return tally

    def _refused(self, step: int, what: str, failures: Sequence[Failure]) -> TrainingError:
        if self._checkpoint is not None and self._workers.is_main:
            save_failures(self._checkpoint, step, what, failures)
        names = [name for failure in failures for name in failure["questions"]]
        where = f" (saved in {self._checkpoint / FAILED})" if self._checkpoint else ""
        return TrainingError(
            f"step {step}: {what}; lower {self._section}.learning_rate or look at the examples "
            f"{', '.join(names)}{where}"
        )

    def _row(self, state: Checkpoint) -> dict[str, float]:
        since = state.since_row
        row = {
            "loss": since.loss / since.weight,
            "learning_rate": self._learning_rate(state.step),
            "epoch": self._params.epochs * state.step / len(self._steps),
        }
        if since.padding_share is not None:
            row["padding_share"] = since.padding_share
        return row

    def _evaluated(self, state: Checkpoint) -> Checkpoint:
        """Dev metrics by the main worker; by all of them where a model takes all to run."""
        self._trainable.train_mode(False)
        metrics = {}
        if self._workers.is_main or self._is_sharded:
            metrics = dict(self._trainable.evaluate())
        metrics = self._workers.agreed(metrics)
        self._trainable.train_mode(True)
        recorded = state.record(metrics, state.step, self._log)
        return recorded.keep_best(self._parameters, metrics, state.step)


def planned_steps(
    trainable: Trainable, params: LoopParams, seed: int, workers: World
) -> list[list[Sequence[int]]]:
    """The batches of each step; the last one may have fewer than the others."""
    size = params.batches_per_step
    if size % workers.size:
        raise TrainingError(
            f"batches_per_step ({size}) must be a multiple of the {workers.size} processes started"
        )
    batches = [
        batch for epoch in range(params.epochs) for batch in trainable.epoch_batches(epoch, seed)
    ]
    if not batches:
        raise TrainingError("no training examples: check the train split of the questions")
    return [list(batches[first : first + size]) for first in range(0, len(batches), size)]


def _has_passed(since: float, minutes: float | None) -> bool:
    return minutes is not None and time.monotonic() - since >= minutes * 60


def _evaluation_steps(total: int, evaluations: int) -> set[int]:
    """Evenly spaced, the last one at the end."""
    return {round(total * (i + 1) / evaluations) for i in range(evaluations)} | {total}


def _is_stale(state: Checkpoint, evaluation_steps: Set[int], patience: int | None) -> bool:
    """Whether the last `patience` evaluations were no better than the best one."""
    since = [step for step in evaluation_steps if state.best_step < step <= state.step]
    return patience is not None and len(since) >= patience
