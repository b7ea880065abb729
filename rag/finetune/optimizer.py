"""AdamW as the loop uses it: groups of parameters by their rate, schedules, clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from rag.errors import TrainingError
from rag.finetune.sharding import is_sharded, local
from rag.finetune.workers import World
from rag.params import LoopParams

if TYPE_CHECKING:
    import torch

Schedule = Literal["linear", "cosine", "constant"]


def rate_share(step: int, steps: int, schedule: Schedule, warmup_share: float) -> float:
    """What the learning rate of a step (from 0) is of the highest: 0 to 1.

    It rises linearly over the warm-up, one step at least, and then falls to 0 along a line or half
    a cosine wave (Loshchilov and Hutter 2017, SGDR), or stays.
    """
    warmup = max(1, round(steps * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return max(0.0, 1.0 - done)


def adamw(
    parameters: Mapping[str, torch.nn.Parameter], rates: Mapping[str, float], params: LoopParams
) -> torch.optim.AdamW:
    """One group for each rate, `rates` being multiples of `learning_rate`, 1 where absent.

    On a GPU all of a group is updated by one kernel (fused).
    """
    import torch

    if unknown := sorted(set(rates) - set(parameters)):
        raise TrainingError(f"rates for what is not trained: {', '.join(unknown)}")
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        # Sharded and whole tensors cannot be updated by one call.
        groups.setdefault((rates.get(name, 1.0), is_sharded(parameter)), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "rate": rate} for (rate, _), group in groups.items()],
        lr=params.learning_rate,
        weight_decay=params.weight_decay,
        fused=all(parameter.is_cuda for parameter in parameters.values()) or None,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the rate of every group, as its multiple of this one."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]


def sum_gradients(parameters: Iterable[torch.nn.Parameter], workers: World) -> None:
    """Replaces gradients by their sum over the workers; those of sharded weights are sums already.

    What no worker has a gradient for stays without one, so that its weights stay as they are.
    """
    if workers.size == 1:
        return
    import torch

    whole = [parameter for parameter in parameters if not is_sharded(parameter)]
    owners = workers.totals([float(parameter.grad is not None) for parameter in whole])
    trained = [p for p, count in zip(whole, owners, strict=True) if count]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    workers.sum([parameter.grad for parameter in trained if parameter.grad is not None])


def clip_gradients(
    parameters: Iterable[torch.nn.Parameter], largest: float, workers: World
) -> float:
    """Scales all gradients so that their norm is at most `largest`; returns what it was."""
    import torch

    trained = [parameter for parameter in parameters if parameter.grad is not None]
    if not any(map(is_sharded, trained)):
        return float(torch.nn.utils.clip_grad_norm_(trained, largest))
    whole = [p.grad for p in trained if p.grad is not None and not is_sharded(p)]
    parts = [local(p.grad) for p in trained if p.grad is not None and is_sharded(p)]
    squares = torch.nn.utils.get_total_norm(parts) ** 2
    workers.sum([squares])
    norm = float((squares + torch.nn.utils.get_total_norm(whole) ** 2).sqrt())
    scale = largest / (norm + 1e-6)  # as torch does it
    if scale < 1.0:
        torch._foreach_mul_([*whole, *parts], scale)
    return norm
