"""The state of a training run: enough to go on after a kill as if nothing had happened.

    STEP.checkpoint.safetensors   tensors now and at their best, optimizer moments, generator
    checkpoint.json               step, metrics, learning-rate schedule, the rows logged so far

Both are written aside and renamed, the JSON last: it is what makes a checkpoint valid. Tensors are
kept as safetensors, so that nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Log = Callable[[Mapping[str, float], int], None]
TENSORS, FACTS = "checkpoint.safetensors", "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """Progress so far; `best` is a copy of the tensors at the best dev evaluation."""

    step: int = 0
    rows: tuple[tuple[int, Mapping[str, float]], ...] = ()
    best_step: int = 0
    best_metrics: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def record(self, row: Mapping[str, float], step: int, log: Log) -> Checkpoint:
        """Logs a row and remembers it, so that a resumed run has the whole curve."""
        log(row, step)
        return replace(self, step=step, rows=(*self.rows, (step, dict(row))))

    def keep_best(
        self, parameters: Mapping[str, torch.nn.Parameter], metrics: Mapping[str, float], step: int
    ) -> Checkpoint:
        """Takes the current tensors where the first metric is higher than ever."""
        name = next(iter(metrics))
        if self.best and metrics[name] <= self.best_metrics[name]:
            return self
        best = {key: value.detach().clone() for key, value in parameters.items()}
        return replace(self, best_step=step, best_metrics=dict(metrics), best=best)

    def restore_best(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Puts the best tensors in place."""
        import torch

        with torch.no_grad():
            for key, value in self.best.items():
                parameters[key].copy_(value)


def save_checkpoint(
    folder: Path | None,
    state: Checkpoint,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Writes a checkpoint into `folder`, replacing the one before; None saves nothing."""
    if folder is None:
        return
    import torch
    from safetensors.torch import save_file

    tensors = {f"model.{key}": value.detach().contiguous() for key, value in parameters.items()}
    tensors |= {f"best.{key}": value.contiguous() for key, value in state.best.items()}
    tensors |= random_state()
    for key, parameter in parameters.items():
        for name, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    facts = asdict(replace(state, best={}))
    facts["schedule_step"] = scheduler.last_epoch
    save_file(tensors, folder / f"{TENSORS}.tmp")
    os.replace(folder / f"{TENSORS}.tmp", folder / f"{state.step}.{TENSORS}")
    (folder / f"{FACTS}.tmp").write_text(json.dumps(facts), encoding="utf-8")
    os.replace(folder / f"{FACTS}.tmp", folder / FACTS)
    for old in folder.glob(f"*.{TENSORS}"):
        if old.name != f"{state.step}.{TENSORS}":
            old.unlink()


def load_checkpoint(
    folder: Path | None,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    log: Log,
) -> Checkpoint:
    """Restores everything from `folder` and logs its rows again; an empty state where none is."""
    if folder is None or not (folder / FACTS).is_file():
        return Checkpoint()
    import torch
    from safetensors.torch import load_file

    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    tensors = load_file(folder / f"{facts['step']}.{TENSORS}")
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(tensors[f"model.{key}"])
            prefix = f"optimizer.{key}."
            optimizer.state[parameter] = {
                name.removeprefix(prefix): value.to(parameter.device) if value.ndim else value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
    set_random_state(tensors)
    scheduler.last_epoch = facts.pop("schedule_step")
    rates = [rate * scale(scheduler.last_epoch) for rate, scale in _rates(scheduler)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
    rows = tuple((step, row) for step, row in facts.pop("rows"))
    for step, row in rows:
        log(row, step)
    best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
    return Checkpoint(**{**facts, "rows": rows, "best": best})


def random_state() -> dict[str, torch.Tensor]:
    """The state of the random number generators: the CPU's, and each GPU's."""
    import torch

    states = {"generator": torch.get_rng_state()}
    if torch.cuda.is_available():
        for number, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"generator.cuda.{number}"] = state
    return states


def set_random_state(states: Mapping[str, torch.Tensor]) -> None:
    """Puts back what `random_state` gave; generators that it does not name stay as they are."""
    import torch

    torch.set_rng_state(states["generator"])
    for name, state in states.items():
        if name.startswith("generator.cuda."):
            torch.cuda.set_rng_state(state, int(name.rsplit(".", 1)[1]))


def _rates(scheduler: Any) -> list[tuple[float, Callable[[int], float]]]:
    return list(zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True))
