"""The one training loop, on a linear model whose right weights plain torch gives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rag.errors import TrainingError
from rag.finetune.loop import length_buckets, train
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

    def epoch_batches(self, epoch: int, seed: int) -> list[list[int]]:
        return length_buckets(self.lengths, self.batch_tokens, seed + epoch)

    def names(self, batch: Sequence[int]) -> list[str]:
        return [f"q{i}" for i in batch]

    def loss(self, batch: Sequence[int]) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fatal_call:
            raise Killed
        rows = list(batch)
        noise = 0.1 * torch.rand(1)  # as dropout draws from the global generator
        return (((self.inputs[rows] @ self.weight - self.targets[rows]) ** 2) + noise).mean()

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


@pytest.mark.parametrize("fatal_call", [4, 7, 9])
def test_a_run_that_goes_on_ends_as_if_never_stopped(tmp_path: Path, fatal_call: int) -> None:
    params = settings(epochs=2, evaluations=4, learning_rate=0.2)
    whole = Line(batch_tokens=64)
    expected = run(whole, params)
    with pytest.raises(Killed):
        run(Line(fatal_call=fatal_call, batch_tokens=64), params, tmp_path)
    resumed = Line(batch_tokens=64)
    summary, rows = run(resumed, params, tmp_path)
    assert 0 < summary.resumed_from < fatal_call
    assert resumed.calls == summary.steps - summary.resumed_from
    assert rows == expected[1]
    assert resumed.weight.tolist() == whole.weight.tolist()
    assert summary.best_metrics == expected[0].best_metrics


def test_the_best_state_outlives_a_stop(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(Line(scores=[9.0, 1.0], fatal_call=3), settings(), tmp_path)
    first = load_file(tmp_path / "2.checkpoint.safetensors")["best.weight"].tolist()
    resumed = Line(scores=[2.0])
    summary, _ = run(resumed, settings(), tmp_path)
    assert (summary.resumed_from, summary.best_step) == (2, 1)
    assert resumed.weight.tolist() == first


def test_a_checkpoint_is_two_files_without_pickle(tmp_path: Path) -> None:
    run(Line(), settings(), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["3.checkpoint.safetensors", "checkpoint.json"]


def test_the_untrained_state_counts_where_asked(tmp_path: Path) -> None:
    """Step 0 is what is left where no later state is better, also after a stop."""
    params = settings(evaluations=2)
    start = {"dev_score": 30.0}
    line = Line(scores=[20.0, 30.0])
    summary, rows = run(line, params, start=start)
    assert rows[0] == (0, start)
    assert (summary.best_step, line.weight.tolist()) == (0, [0.0, 0.0])

    with pytest.raises(Killed):
        run(Line(scores=[20.0], fatal_call=3), params, tmp_path, start=start)
    resumed = Line(scores=[10.0])
    summary, again = run(resumed, params, tmp_path, start=start)
    assert (summary.resumed_from, summary.best_step) == (2, 0)
    assert run(Line(scores=[20.0, 31.0]), params, start=start)[0].best_step == 3
    assert resumed.weight.tolist() == [0.0, 0.0]
    assert [step for step, row in again if "dev_score" in row] == [0, 2, 3]


def test_training_stops_after_as_many_evaluations_without_a_gain_as_patience(
    tmp_path: Path,
) -> None:
    params = settings(epochs=6, evaluations=6, patience=2)
    scores = [10.0, 30.0, 20.0, 30.0]
    line = Line(scores=scores)
    summary, _ = run(line, params)
    assert (summary.steps, summary.last_step, summary.best_step, line.calls) == (6, 4, 2, 4)

    # Stopped and then run again, from a checkpoint at which patience was over or nearly so.
    run(Line(scores=scores), params, tmp_path)
    again = Line()
    assert (run(again, params, tmp_path)[0].last_step, again.calls) == (4, 0)
    with pytest.raises(Killed):
        run(Line(scores=scores, fatal_call=4), params, tmp_path / "nearly")
    again = Line(scores=scores[3:])
    assert (run(again, params, tmp_path / "nearly")[0].last_step, again.calls) == (4, 1)
    assert again.weight.tolist() == line.weight.tolist()


def test_a_message_names_the_parameters_of_whoever_is_trained() -> None:
    with pytest.raises(TrainingError, match=r"step 1 of 3: retriever\.training\.max_minutes"):
        run(Line(), settings(max_minutes=1e-9), section="retriever.training")


def test_tensors_without_their_facts_are_no_checkpoint(tmp_path: Path) -> None:
    """Killed between the two files, the run goes on from the checkpoint before, or anew."""
    run(Line(), settings(), tmp_path)
    (tmp_path / "checkpoint.json").unlink()
    assert run(Line(), settings(), tmp_path)[0].resumed_from == 0


LENGTHS = st.lists(st.integers(1, 50), max_size=200)


@given(LENGTHS, st.integers(1, 120), st.integers(0, 9))
def test_buckets_hold_every_example_once_within_the_budget(
    lengths: list[int], batch_tokens: int, seed: int
) -> None:
    batches = length_buckets(lengths, batch_tokens, seed)
    assert Counter(i for batch in batches for i in batch) == Counter(range(len(lengths)))
    assert all(
        max(lengths[i] for i in batch) * len(batch) <= batch_tokens or len(batch) == 1
        for batch in batches
    )
    assert length_buckets(lengths, batch_tokens, seed) == batches


def test_buckets_pad_little_and_differ_by_seed() -> None:
    lengths = [10 * (1 + i % 5) for i in range(120)]
    first, second = (length_buckets(lengths, 200, seed) for seed in (1, 2))
    assert first != second
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in first)
    assert padded < 1.15 * sum(lengths)
    longest = [max(lengths[i] for i in batch) for batch in first]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
