"""The gradient of a step where memory ends: the same sum, from parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch

from rag.errors import TrainingError
from rag.finetune.checkpoint import Tally
from rag.finetune.step import StepGradient, is_out_of_memory
from rag.finetune.trainable import Loss, halved

#: As torch 2.13 says it on Linux and on Windows.
MESSAGES = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried "
    "to allocate 4000 bytes.",
)


class Squares:
    """Sum of (a x_i)^2: its derivative by a is 2 a sum x_i^2. Memory ends above `room` examples.

    Where `late`, it ends in the middle of the backward pass, after gradients were written.
    """

    def __init__(self, inputs: Sequence[float], room: int, *, late: bool = False) -> None:
        self.inputs = torch.tensor(inputs)
        self.a = torch.nn.Parameter(torch.tensor(1.0))
        self.b = torch.nn.Parameter(torch.tensor(1.0))
        self.room, self.late = room, late
        self.error: Callable[[], RuntimeError] = lambda: RuntimeError(MESSAGES[0])
        self.tried: list[list[int]] = []

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return {"a": self.a, "b": self.b}

    def names(self, batch: Sequence[int]) -> list[str]:
        return [f"q{i}" for i in batch]

    def rates(self) -> Mapping[str, float]:
        return {}

    def size(self, batch: Sequence[int]) -> int:
        return 10 * len(batch)

    def halves(self, batch: Sequence[int]) -> Sequence[Sequence[int]]:
        return halved(batch)

    def models(self) -> Sequence[torch.nn.Module]:
        return []

    def epoch_batches(self, epoch: int, seed: int) -> Sequence[Sequence[int]]:
        return [range(len(self.inputs))]

    def loss(self, batch: Sequence[int]) -> Loss:
        self.tried.append(list(batch))
        is_full = len(batch) > self.room
        if is_full and not self.late:
            raise self.error()
        inputs = self.inputs[list(batch)]
        early = inputs.clone().requires_grad_()  # its gradient comes after that of b
        if is_full:
            early.register_hook(self._end)
        total = ((self.a * early) ** 2).sum() + self.b * len(batch)
        return Loss(total, len(batch), tokens=8 * len(batch), padded_tokens=10 * len(batch))

    def _end(self, _: torch.Tensor) -> None:
        raise self.error()

    def evaluate(self) -> Mapping[str, float]:
        return {"dev": 0.0}

    def train_mode(self, training: bool) -> None:
        pass


def gradient(squares: Squares, said: list[str], too_large: int | None = None) -> StepGradient:
    return StepGradient(
        squares,
        squares.parameters(),
        say=said.append,
        section="reader.training",
        too_large=too_large,
    )


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("room", [1, 2, 4])
def test_parts_add_up_to_the_batch_and_to_what_the_step_had_before(room: int, late: bool) -> None:
    """1 + 4 + 9 + 16 + 25 = 55, after a batch with 4 alone."""
    squares = Squares([1.0, 2.0, 3.0, 4.0, 5.0], room, late=late)
    said: list[str] = []
    step = gradient(squares, said)
    step.add([1])
    assert squares.a.grad is not None
    assert squares.b.grad is not None
    assert (squares.a.grad.item(), squares.b.grad.item()) == (8.0, 1.0)
    tally = step.add([0, 1, 2, 3, 4])
    assert (squares.a.grad.item(), squares.b.grad.item()) == (118.0, 6.0)
    assert tally == Tally(loss=60.0, weight=5, samples=5, tokens=40, padded_tokens=50)
    sizes = {1: [50, 30, 20], 2: [50, 30], 4: [50]}[room]
    assert [int(re.findall(r"size (\d+)", line)[0]) for line in said] == sizes
    assert step.too_large == sizes[-1]


def test_what_is_as_large_is_cut_at_once_from_then_on() -> None:
    squares = Squares([1.0, 2.0, 3.0, 4.0], 2)
    said: list[str] = []
    step = gradient(squares, said)
    step.add([0, 1, 2, 3])
    assert squares.tried == [[0, 1, 2, 3], [0, 1], [2, 3]]
    squares.tried.clear()
    step.add([3, 2, 1, 0])
    assert squares.tried == [[3, 2], [1, 0]]
    assert len(said) == 1

    resumed = gradient(squares, said, too_large=40)
    squares.tried.clear()
    resumed.add([0, 1, 2, 3])
    assert squares.tried == [[0, 1], [2, 3]]
    assert len(said) == 1


def test_one_example_that_is_too_large_is_an_error_that_says_what_to_do() -> None:
    step = gradient(Squares([1.0, 2.0], 0), [])
    with pytest.raises(TrainingError, match=r"size 10 \(q0\).*gradient_checkpointing: true"):
        step.add([0, 1])


def test_one_example_as_large_as_what_did_not_fit_is_tried_all_the_same() -> None:
    squares = Squares([3.0], 1)
    gradient(squares, [], too_large=10).add([0])
    assert squares.a.grad == 18.0


def test_another_error_is_raised_as_it_is() -> None:
    squares = Squares([1.0, 2.0], 0)
    squares.error = lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        gradient(squares, []).add([0, 1])
    assert squares.tried == [[0, 1]]


def test_both_allocators_are_understood() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert all(is_out_of_memory(RuntimeError(message)) for message in MESSAGES)
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(real.value)


def test_what_is_not_counted_leaves_no_trace() -> None:
    squares = Squares([1.0, 2.0], 2)
    step = gradient(squares, [])
    step.add([0])
    assert step.add([1], counted=False) == Tally()
    assert squares.a.grad == 2.0
    assert squares.b.grad == 1.0
