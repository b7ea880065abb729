"""The gradient of one step: batches summed, cut where memory ends, checked to be finite."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import TrainingError
from rag.finetune.checkpoint import Tally

if TYPE_CHECKING:
    import torch

    from rag.finetune.trainable import Trainable

Failure = dict[str, Any]
FAILED = "failed_batch.json"
#: What the allocators of torch say on a CPU, where they raise a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "not enough memory")


class StepGradient:
    """Adds up the gradients of batches; one that does not fit into memory is trained in parts.

    The sum over parts is the sum over the batch, so nothing else of a step changes. Batches of a
    size that did not fit (`too_large`) are cut at once from then on.
    """

    def __init__(
        self,
        trainable: Trainable,
        parameters: Mapping[str, torch.nn.Parameter],
        *,
        say: Callable[[str], None],
        section: str,
        too_large: int | None = None,
        may_cut: bool = True,
    ) -> None:
        self._trainable = trainable
        self._parameters = list(parameters.values())
        self._say = say
        self._section = section
        self._may_cut = may_cut
        self.too_large = too_large
        self.failures: list[Failure] = []
        """Batches whose loss was not finite."""

    def add(self, batch: Sequence[int], *, counted: bool = True) -> Tally:
        """Adds a batch's gradient; one that is not counted is run and leaves no trace."""
        tally, waiting = Tally(), [batch]
        while waiting:
            part = waiting.pop(0)
            parts = self._trainable.halves(part) if self._is_too_large(part) else ()
            done = None if parts else self._run(part, counted)
            if done is None:
                waiting[:0] = parts or self._cut(part)
            elif counted:
                tally += done
        return tally

    def _is_too_large(self, part: Sequence[int]) -> bool:
        return self.too_large is not None and self._trainable.size(part) >= self.too_large

    def _run(self, part: Sequence[int], counted: bool) -> Tally | None:
        """Forward and backward of a part; None, and all gradients as before, without memory."""
        earlier = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        done: Tally | None = None
        try:
            loss = self._trainable.loss(part)
            (loss.total if counted else loss.total * 0.0).backward()
            names = list(self._trainable.names(part))
            done = Tally(
                loss.total.item(), loss.weight, len(names), loss.tokens, loss.padded_tokens
            )
            if counted and not math.isfinite(done.loss):
                self.failures.append({"loss": str(done.loss), "questions": names})
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        for parameter, gradient in zip(self._parameters, earlier, strict=True):
            if done is None or parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad = gradient.add_(parameter.grad)
        return done

    def _cut(self, part: Sequence[int]) -> Sequence[Sequence[int]]:
        import torch

        # Only here, after the error with its frames is gone, is the memory free again.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = self._trainable.size(part)
        self.too_large = size
        parts = self._trainable.halves(part) if self._may_cut else ()
        if not parts:
            why = "" if self._may_cut else ", and weights that are sharded allow no cutting"
            raise TrainingError(
                f"out of memory with a batch of size {size} "
                f"({', '.join(self._trainable.names(part))}){why}; set "
                f"{self._section}.gradient_checkpointing: true or allow fewer tokens"
            )
        self._say(
            f"{self._section}: out of memory with a batch of size {size}; it is trained in halves, "
            "and so are others as large from here on"
        )
        return parts


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocator of torch, on a GPU or a CPU, says that there is no more memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in _NO_MEMORY
    )


def save_failures(folder: Path, step: int, reason: str, failures: Sequence[Failure]) -> None:
    """Writes which batches were not finite, by their questions, beside the checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"step": step, "reason": reason, "batches": list(failures)}, indent=2)
    (folder / FAILED).write_text(text + "\n", encoding="utf-8")
