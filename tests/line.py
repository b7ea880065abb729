"""A linear model as something to train: plain torch gives its right weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rag.finetune.loop import train
from rag.finetune.trainable import Loss, halved, length_buckets
from rag.params import LoopParams

Rows = list[tuple[int, dict[str, float]]]


class Killed(Exception):
    """Stands for the end of the process."""


class Line:
    """y = 3 a - 2 b by least squares; dev metrics are given, one for each evaluation."""

    def __init__(
        self,
        count: int = 12,
        scores: Sequence[float] = (),
        fatal_call: int = 0,
        batch_tokens: int = 1000,
    ) -> None:
        generator = torch.Generator().manual_seed(5)
        self.inputs = torch.randn(count, 2, generator=generator)
        self.targets = self.inputs @ torch.tensor([3.0, -2.0])
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.lengths = [10 * (1 + i % 3) for i in range(count)]
        self.scores = list(scores)
        self.seen: list[list[float]] = []
        self.modes: list[bool] = []
        self.calls = 0
        self.fatal_call = fatal_call
        self.batch_tokens = batch_tokens

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return {"weight": self.weight}

    def rates(self) -> Mapping[str, float]:
        return {}

    def size(self, batch: Sequence[int]) -> int:
        return max(self.lengths[i] for i in batch) * len(batch)

    def halves(self, batch: Sequence[int]) -> Sequence[Sequence[int]]:
        return halved(batch)

    def models(self) -> Sequence[torch.nn.Module]:
        return []

    def epoch_batches(self, epoch: int, seed: int) -> list[list[int]]:
        return length_buckets(self.lengths, self.batch_tokens, seed + epoch)

    def names(self, batch: Sequence[int]) -> list[str]:
        return [f"q{i}" for i in batch]

    def loss(self, batch: Sequence[int]) -> Loss:
        self.calls += 1
        if self.calls == self.fatal_call:
            raise Killed
        rows = list(batch)
        noise = 0.1 * torch.rand(1)  # as dropout draws from the global generator
        errors = self.inputs[rows] @ self.weight - self.targets[rows]
        return Loss((errors**2 + noise).sum(), len(rows))

    def evaluate(self) -> Mapping[str, float]:
        self.seen.append(self.weight.tolist())
        score = self.scores[len(self.seen) - 1] if self.scores else -self.distance()
        return {"dev_score": score, "dev_other": 0.0}

    def distance(self) -> float:
        return float((self.weight.detach() - torch.tensor([3.0, -2.0])).norm())

    def train_mode(self, training: bool) -> None:
        self.modes.append(training)


def settings(**changes: Any) -> LoopParams:
    given_values: dict[str, Any] = {
        "epochs": 3,
        "learning_rate": 0.3,
        "warmup_share": 0.25,
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
        "evaluations": 3,
    }
    return LoopParams(**(given_values | changes))


def run(
    line: Line, params: LoopParams, folder: Path | None = None, **options: Any
) -> tuple[Any, Rows]:
    rows: Rows = []
    summary = train(
        line,
        params,
        seed=3,
        log=lambda metrics, step: rows.append((step, dict(metrics))),
        checkpoint=folder,
        **options,
    )
    return summary, rows
