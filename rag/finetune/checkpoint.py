"""The state of a training run: enough to go on after a kill as if nothing had happened.

    STEP.checkpoint.safetensors   tensors now and at their best, optimizer moments, generators
    checkpoint.json               step, metrics, the rows logged so far, the losses since the last

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

from rag.finetune.sharding import placed, whole
from rag.finetune.workers import World

if TYPE_CHECKING:
    import torch

Log = Callable[[Mapping[str, float], int], None]
TENSORS, FACTS = "checkpoint.safetensors", "checkpoint.json"


@dataclass(frozen=True)
class Tally:
    """What was trained on; `loss` is summed over what `weight` counts."""

    loss: float = 0.0
    weight: float = 0.0
    samples: int = 0
    tokens: int = 0
    padded_tokens: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())

    @property
    def padding_share(self) -> float | None:
        """The share of tokens that were padding; None where tokens were not counted."""
        return 1.0 - self.tokens / self.padded_tokens if self.padded_tokens else None


@dataclass(frozen=True)
class Checkpoint:
    """Progress so far; `best` is a copy of the tensors at the best dev evaluation."""

    step: int = 0
    rows: tuple[tuple[int, Mapping[str, float]], ...] = ()
    since_row: Tally = Tally()
    """What was trained on since the last row with a loss."""
    too_large: int | None = None
    """Batches of this size did not fit into memory."""
    best_step: int = 0
    best_metrics: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def record(self, row: Mapping[str, float], step: int, log: Log) -> Checkpoint:
        """Logs a row and remembers it, so that a resumed run has the whole curve."""
        log(row, step)
        return replace(self, rows=(*self.rows, (step, dict(row))))

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
    workers: World,
) -> None:
    """Writes a checkpoint into `folder`, replacing the one before; None saves nothing.

    The main worker writes it, and every worker has to take part: weights may be sharded, and each
    has a random number generator of its own.
    """
    if folder is None:
        return
    from safetensors.torch import save_file

    tensors = _tensors(state, parameters, optimizer, workers)
    if not workers.is_main:
        return
    folder.mkdir(parents=True, exist_ok=True)
    facts = asdict(replace(state, best={}))
    save_file(tensors, folder / f"{TENSORS}.tmp")
    os.replace(folder / f"{TENSORS}.tmp", folder / f"{state.step}.{TENSORS}")
    (folder / f"{FACTS}.tmp").write_text(json.dumps(facts), encoding="utf-8")
    os.replace(folder / f"{FACTS}.tmp", folder / FACTS)
    for old in folder.glob(f"*.{TENSORS}"):
        if old.name != f"{state.step}.{TENSORS}":
            old.unlink()


def _tensors(
    state: Checkpoint,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    workers: World,
) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint; of workers other than the main one nothing is needed."""
    import torch

    named: list[tuple[str, torch.Tensor]] = [
        (f"model.{key}", value) for key, value in parameters.items()
    ]
    named += [(f"best.{key}", value) for key, value in state.best.items()]
    for key, parameter in parameters.items():
        for name, value in optimizer.state[parameter].items():
            named.append((f"optimizer.{key}.{name}", torch.as_tensor(value)))
    tensors = {}
    for name, value in named:
        full = whole(value)
        if workers.is_main:
            tensors[name] = full.contiguous()
    for number, states in enumerate(workers.gathered(random_state())):
        tensors |= {_of_worker(number, name): value for name, value in states.items()}
    return tensors


def load_checkpoint(
    folder: Path | None,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    log: Log,
    workers: World,
) -> Checkpoint:
    """Restores everything from `folder` and logs its rows again; an empty state where none is."""
    if folder is None or not workers.agreed((folder / FACTS).is_file()):
        return Checkpoint()
    import torch
    from safetensors.torch import load_file

    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    tensors = load_file(folder / f"{facts['step']}.{TENSORS}")
    fused = bool(optimizer.defaults.get("fused"))
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(placed(tensors[f"model.{key}"], parameter))
            prefix = f"optimizer.{key}."
            optimizer.state[parameter] = {
                # A count of steps stays on the CPU, unless it is read by the GPU's own kernel.
                name.removeprefix(prefix): (
                    placed(value, parameter)
                    if value.ndim
                    else value.to(parameter.device if fused else "cpu")
                )
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
    own = {name: tensors.get(_of_worker(workers.rank, name)) for name in random_state()}
    set_random_state({name: value for name, value in own.items() if value is not None})
    rows = tuple((step, row) for step, row in facts["rows"])
    for step, row in rows:
        log(row, step)
    best = {
        key: placed(tensors[f"best.{key}"], parameter)
        for key, parameter in parameters.items()
        if f"best.{key}" in tensors
    }
    since_row = Tally(**facts["since_row"])
    return Checkpoint(**{**facts, "rows": rows, "best": best, "since_row": since_row})


def _of_worker(number: int, name: str) -> str:
    return f"worker.{number}.{name}" if number else name


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

    if "generator" in states:
        torch.set_rng_state(states["generator"])
    for name, state in states.items():
        if name.startswith("generator.cuda."):
            torch.cuda.set_rng_state(state, int(name.rsplit(".", 1)[1]))
