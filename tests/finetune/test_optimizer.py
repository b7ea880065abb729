"""Schedules by their formulas, and groups of parameters against AdamW with groups of its own."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from rag.errors import TrainingError
from rag.finetune.optimizer import adamw, clip_gradients, rate_share, set_learning_rate
from rag.finetune.workers import World
from rag.params import LoopParams

PARAMS = LoopParams(epochs=1, learning_rate=0.1, warmup_share=0.0, weight_decay=0.5, evaluations=1)


def test_every_schedule_warms_up_alike_and_then_goes_its_way() -> None:
    """Ten steps, two of warming up: eight are left, of which step 6 has gone half."""
    shares = {
        name: [rate_share(step, 10, name, 0.2) for step in range(10)]
        for name in ("linear", "cosine", "constant")
    }
    assert all(own[:3] == [0.5, 1.0, 1.0] for own in shares.values())
    assert shares["linear"][6] == 0.5
    assert shares["linear"][9] == pytest.approx(1 / 8)
    assert shares["cosine"][4] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert shares["cosine"][6] == pytest.approx(0.5)
    assert shares["cosine"][9] == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)
    assert shares["constant"][3:] == [1.0] * 7


def test_the_cosine_is_that_of_transformers() -> None:
    from transformers import get_cosine_schedule_with_warmup

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 4, 20)
    for step in range(20):
        if step > 4:  # its warm-up begins at zero
            expected = schedule.get_last_lr()[0]
            assert rate_share(step, 20, "cosine", 0.2) == pytest.approx(expected)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_of_few_steps_has_no_hole(schedule: str) -> None:
    for steps in range(1, 6):
        shares = [rate_share(step, steps, schedule, 0.1) for step in range(steps)]  # type: ignore[arg-type]
        assert shares[0] == 1.0
        assert all(0.0 < after <= before for before, after in pairwise(shares))


def test_rates_are_multiples_of_the_learning_rate_by_name() -> None:
    values = {name: torch.nn.Parameter(torch.tensor([2.0, -1.0])) for name in ("a", "b", "c")}
    own = {name: torch.nn.Parameter(value.detach().clone()) for name, value in values.items()}
    optimizer = adamw(values, {"b": 0.1}, PARAMS)
    set_learning_rate(optimizer, 0.02)
    plain = torch.optim.AdamW(
        [{"params": [own["a"], own["c"]], "lr": 0.02}, {"params": [own["b"]], "lr": 0.002}],
        weight_decay=0.5,
    )
    for parameter in (*values.values(), *own.values()):
        parameter.grad = torch.tensor([1.0, 3.0])
    optimizer.step()
    plain.step()
    assert [value.tolist() for value in values.values()] == [own[n].tolist() for n in values]
    assert own["a"].tolist() == own["c"].tolist() != own["b"].tolist()


def test_a_rate_of_something_unknown_is_an_error() -> None:
    with pytest.raises(TrainingError, match="not trained: typo"):
        adamw({"a": torch.nn.Parameter(torch.zeros(1))}, {"typo": 0.1}, PARAMS)


def test_clipping_scales_to_the_norm_and_tells_what_it_was() -> None:
    first, second = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    first.grad, second.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_gradients([first, second], 2.5, World()) == 5.0
    assert (first.grad.item(), second.grad.item()) == pytest.approx((1.5, 2.0), abs=1e-5)
    assert clip_gradients([first, second], 10.0, World()) == pytest.approx(2.5, abs=1e-5)
    assert (first.grad.item(), second.grad.item()) == pytest.approx((1.5, 2.0), abs=1e-5)
