"""The one training loop, on a linear model whose right weights plain torch gives."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rag.errors import TrainingError
from rag.finetune.loop import Loss, planned_steps
from rag.finetune.workers import World
from tests.line import Line, run, settings


def test_the_weights_are_those_of_plain_adamw() -> None:
    """12 examples in one batch, four steps: warm-up over one, then linearly down to zero."""
    line = Line()
    _, rows = run(line, settings(epochs=4, evaluations=1))
    expected = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([expected], lr=0.3, weight_decay=0.1)
    for rate in (0.3, 0.3, 0.2, 0.1):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        ((line.inputs @ expected - line.targets) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_([expected], 1.0)
        optimizer.step()
    torch.testing.assert_close(line.weight, expected, atol=1e-6, rtol=0)
    assert rows[-2][1]["learning_rate"] == pytest.approx(0.1)


def test_the_loss_falls_and_every_loss_is_logged_once() -> None:
    line = Line(batch_tokens=64)
    params = settings(epochs=20, weight_decay=0.0, evaluations=4)
    summary, rows = run(line, params)
    losses = [row for row in rows if "loss" in row[1]]
    assert losses[-1][1]["loss"] < 0.1 * losses[0][1]["loss"]
    assert line.calls == summary.steps == losses[-1][0] > 50
    assert losses[-1][1]["epoch"] == 20
    assert [step for step, _ in losses] == sorted({step for step, _ in losses})
    assert [step for step, row in rows if "dev_score" in row] == [
        round(summary.steps * share) for share in (0.25, 0.5, 0.75, 1.0)
    ]


def test_the_best_state_is_left_and_not_the_last() -> None:
    line = Line(scores=[10.0, 30.0, 20.0])
    summary, _ = run(line, settings())
    assert line.weight.tolist() == line.seen[1] != line.seen[2]
    assert (summary.best_step, summary.steps, summary.resumed_from) == (2, 3, 0)
    assert summary.best_metrics == {"dev_score": 30.0, "dev_other": 0.0}


def test_of_equal_states_the_first_is_left() -> None:
    line = Line(scores=[30.0, 30.0, 30.0])
    assert run(line, settings())[0].best_step == 1
    assert line.weight.tolist() == line.seen[0]


def test_evaluation_is_not_done_in_training_mode() -> None:
    line = Line(scores=[1.0, 2.0, 3.0])
    run(line, settings())
    assert line.modes == [True, False, True, False, True, False, True, False]


def test_a_loss_that_is_not_finite_names_its_examples() -> None:
    line = Line(count=3)
    line.targets[1] = math.nan
    with pytest.raises(TrainingError, match=r"step 1: the loss is nan.*q\d, q\d, q\d"):
        run(line, settings())


def test_no_examples_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no training examples"):
        run(Line(count=0), settings())


def test_too_little_time_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"step 1 of 3: reader\.training\.max_minutes"):
        run(Line(), settings(max_minutes=1e-9))


def test_a_message_names_the_parameters_of_whoever_is_trained() -> None:
    with pytest.raises(TrainingError, match=r"step 1 of 3: retriever\.training\.max_minutes"):
        run(Line(), settings(max_minutes=1e-9), section="retriever.training")


def test_batches_of_a_step_are_as_one_large_batch() -> None:
    """12 examples in batches of several sizes: the mean is over examples, not over batches."""
    many = Line(batch_tokens=64)
    batches = len(many.epoch_batches(0, 3))
    sizes = {len(batch) for batch in many.epoch_batches(0, 3)}
    assert len(sizes) > 1
    params = settings(epochs=4, batches_per_step=batches, evaluations=1)
    summary, rows = run(many, params)
    one = Line()
    expected, expected_rows = run(one, settings(epochs=4, evaluations=1))
    torch.testing.assert_close(many.weight, one.weight, atol=1e-6, rtol=0)
    assert (summary.steps, summary.trained.samples) == (4, 48) == (expected.steps, 48)
    noise = 0.1
    assert rows[0][1]["loss"] == pytest.approx(expected_rows[0][1]["loss"], abs=noise)


def test_a_number_of_processes_that_does_not_divide_a_step_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"batches_per_step \(3\) must be a multiple of the 2"):
        planned_steps(Line(), settings(batches_per_step=3), 3, World(1, 2))


def test_the_last_step_takes_what_is_left() -> None:
    """Five batches, two a step: 2, 2 and 1."""
    line = Line(count=10, batch_tokens=50)
    line.lengths = [25] * 10
    summary, rows = run(line, settings(epochs=1, batches_per_step=2, evaluations=1))
    assert (summary.steps, line.calls, summary.trained.samples) == (3, 5, 10)
    batches = line.epoch_batches(0, 3)
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight], weight_decay=0.1)
    for rate, step in ((0.3, batches[:2]), (0.3, batches[2:4]), (0.15, batches[4:])):
        rows_of_step = [i for batch in step for i in batch]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        errors = line.inputs[rows_of_step] @ weight - line.targets[rows_of_step]
        (errors**2).mean().backward()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
    torch.testing.assert_close(line.weight, weight, atol=1e-6, rtol=0)
    assert rows[0][1]["learning_rate"] == pytest.approx(0.15)


def test_the_share_of_padding_is_part_of_the_curve() -> None:
    """Lengths 10, 20 and 30 in one batch: 60 tokens in 90 places."""
    line = Line(count=3)
    plain = line.loss

    def loss(batch: Sequence[int]) -> Loss:
        return replace(plain(batch), tokens=60, padded_tokens=90)

    line.loss = loss  # type: ignore[method-assign]
    summary, rows = run(line, settings(epochs=6, evaluations=1))
    found = [row["padding_share"] for _, row in rows if "loss" in row]
    assert found == pytest.approx([1 / 3, 1 / 3])
    assert summary.trained == replace(summary.trained, samples=18, tokens=360, padded_tokens=540)
    assert "padding_share" not in run(Line(), settings())[1][0][1]


class Small(Line):
    """Memory ends above three examples."""

    def loss(self, batch: Sequence[int]) -> Loss:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(batch)


def test_a_batch_without_memory_is_trained_in_halves_and_the_weights_are_the_same(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    small, whole = Small(), Line()
    run(small, settings(), tmp_path, say=said.append)
    run(whole, settings())
    torch.testing.assert_close(small.weight, whole.weight, atol=1e-6, rtol=0)
    # All 12 at 30 tokens, six of them, and the other six at 20; three fit. In the next steps what
    # is as large is not tried again.
    sizes = [int(re.findall(r"of size (\d+); it is trained in halves", line)[0]) for line in said]
    assert sizes == [360, 180, 120]
    assert json.loads((tmp_path / "checkpoint.json").read_text())["too_large"] == 120


def test_batches_that_are_not_finite_are_saved_with_their_questions(tmp_path: Path) -> None:
    line = Line(batch_tokens=64)
    line.targets[4] = math.inf
    with pytest.raises(TrainingError, match=r"the loss is inf.*q4.*saved in .*failed_batch\.json"):
        run(line, settings(batches_per_step=2), tmp_path)
    saved = json.loads((tmp_path / "failed_batch.json").read_text())
    [batch] = saved["batches"]
    assert (batch["loss"], saved["reason"]) == ("inf", "the loss is inf")
    assert "q4" in batch["questions"]
    steps = line.epoch_batches(0, 3)
    number = next(n for n, indices in enumerate(steps) if 4 in indices)
    assert saved["step"] == number // 2 + 1
    assert batch["questions"] == line.names(steps[number])


def test_a_gradient_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    """The root's derivative at 0 is infinite, and times 0 not a number: the loss is 1."""
    line = Line(count=2)
    line.loss = lambda batch: Loss(  # type: ignore[method-assign]
        (line.weight * 0.0).sum().abs().sqrt() * 0.0 + 1.0, 1
    )
    with pytest.raises(TrainingError, match=r"step 1: the norm of the gradient is nan.*q\d, q\d"):
        run(line, settings(), tmp_path)
    saved = json.loads((tmp_path / "failed_batch.json").read_text())
    assert sorted(saved["batches"][0]["questions"]) == ["q0", "q1"]
    assert line.weight.tolist() == [0.0, 0.0]
