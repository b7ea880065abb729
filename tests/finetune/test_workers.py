"""Training in several real processes: the curve of one, one error line, nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from rag.errors import DataError, TrainingError
from rag.finetune.loop import train
from rag.finetune.trainable import Loss, halved, length_buckets
from rag.finetune.workers import World, joined, launch, world
from rag.params import LoopParams
from tests.toy import REPOSITORY

pytestmark = pytest.mark.integration
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "learning_rate": 0.01,
    "warmup_share": 0.2,
    "weight_decay": 0.1,
    "gradient_clip": 0.5,
    "schedule": "cosine",
    "batches_per_step": 2,
    "precision": "float32",
    "evaluations": 2,
}


class TinyLanguageModel:
    """A random Llama of three layers that learns sequences; its first layer is frozen."""

    def __init__(self, fatal_call: int = 0) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(4)
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=40,
                hidden_size=16,
                intermediate_size=33,  # not a multiple of two: shards are of different sizes
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=True,
            )
        )
        for parameter in self.model.model.layers[0].parameters():
            parameter.requires_grad = False
        generator = torch.Generator().manual_seed(1)
        self.lengths = [4 + i % 5 for i in range(23)]
        self.rows = [torch.randint(40, (length,), generator=generator) for length in self.lengths]
        self.calls, self.fatal_call = 0, fatal_call

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def rates(self) -> Mapping[str, float]:
        return {name: 0.5 for name in self.parameters() if "norm" in name}

    def models(self) -> Sequence[torch.nn.Module]:
        return [self.model]

    def epoch_batches(self, epoch: int, seed: int) -> list[list[int]]:
        return length_buckets(self.lengths, 24, seed + epoch)

    def names(self, batch: Sequence[int]) -> list[str]:
        return [f"q{i}" for i in batch]

    def size(self, batch: Sequence[int]) -> int:
        return max(self.lengths[i] for i in batch) * len(batch)

    def halves(self, batch: Sequence[int]) -> Sequence[Sequence[int]]:
        return halved(batch)

    def loss(self, batch: Sequence[int]) -> Loss:
        self.calls += 1
        if self.calls == self.fatal_call:
            os.kill(os.getpid(), signal.SIGKILL)
        rows = [self.rows[i] for i in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        wanted = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        # As the readers do: the layers alone, then the output matrix.
        states = self.model.model(input_ids=ids).last_hidden_state
        total = torch.nn.functional.cross_entropy(
            self.model.lm_head(states[:, :-1]).flatten(0, 1),
            wanted[:, 1:].flatten(),
            reduction="sum",
        )
        tokens = sum(map(len, rows))
        return Loss(total, tokens - len(rows), tokens=tokens, padded_tokens=ids.numel())

    def evaluate(self) -> Mapping[str, float]:
        with torch.inference_mode():
            losses = [self.loss([i]) for i in range(4)]
        return {"dev_score": -sum(float(loss.total) for loss in losses)}

    def train_mode(self, training: bool) -> None:
        self.model.train(training)


def train_tiny(argument: str) -> None:
    """What each process runs: `argument` is JSON with params, a folder and who dies when."""
    options = json.loads(argument)
    folder = Path(options["folder"])
    with joined() as workers:
        is_victim = workers.rank == options.get("victim")
        tiny = TinyLanguageModel(options.get("fatal_call", 0) if is_victim else 0)
        rows: list[tuple[int, dict[str, float]]] = []
        summary = train(
            tiny,
            LoopParams(**options["params"]),
            seed=3,
            log=lambda row, step: rows.append((step, dict(row))),
            checkpoint=folder / "checkpoint",
        )
        if workers.is_main:
            facts = {
                "rows": rows,
                "best_step": summary.best_step,
                "samples": summary.trained.samples,
                "resumed_from": summary.resumed_from,
                # By this process alone, with all that the others held.
                "after": tiny.evaluate(),
                "threads": torch.get_num_threads(),
            }
            (folder / "result.json").write_text(json.dumps(facts))
            save_file(
                {name: p.detach().clone() for name, p in tiny.model.named_parameters()},
                folder / "weights.safetensors",
            )


def trained(folder: Path, processes: int, **options: Any) -> dict[str, Any]:
    """Trains in that many new processes and returns what they wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    params = SETTINGS | options.pop("params", {})
    argument = json.dumps({"folder": str(folder), "params": params, **options})
    launch(train_tiny, argument, processes)
    facts: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return facts | {"weights": load_file(folder / "weights.safetensors")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("alone"), 1)


def assert_alike(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert [step for step, _ in found["rows"]] == [step for step, _ in expected["rows"]]
    for (_, row), (_, wanted) in zip(found["rows"], expected["rows"], strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)
    assert found["best_step"] == expected["best_step"]
    assert found["samples"] == expected["samples"] == 69
    assert found["after"] == pytest.approx(expected["after"], abs=1e-4)
    assert set(found["weights"]) == set(expected["weights"])
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, atol=2e-5, rtol=0)


def test_two_processes_train_as_one(alone: dict[str, Any], tmp_path: Path) -> None:
    losses = [row["loss"] for _, row in alone["rows"] if "loss" in row]
    assert losses[-1] < losses[0] - 0.1
    steps = len(TinyLanguageModel().epoch_batches(0, 3)) * 3
    assert steps % 2 == 1  # the last step has work for one of them alone
    found = trained(tmp_path, 2)
    assert_alike(found, alone)
    assert found["threads"] == max(1, alone["threads"] // 2)


def test_sharded_weights_train_as_whole_ones_and_are_whole_afterwards(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    found = trained(tmp_path, 2, params={"processes": 2, "shard_weights": True})
    assert_alike(found, alone)


@pytest.mark.slow
def test_a_killed_worker_is_one_error_and_the_next_run_ends_bit_for_bit_the_same(
    tmp_path: Path,
) -> None:
    params = {"processes": 2, "shard_weights": True, "checkpoint_minutes": 1e-9}
    whole = trained(tmp_path / "whole", 2, params=params)
    with pytest.raises(TrainingError, match="process 2 of 2 was ended by SIGKILL; run the stage"):
        trained(tmp_path / "killed", 2, params=params, victim=1, fatal_call=4)
    resumed = trained(tmp_path / "killed", 2, params=params)
    assert resumed["resumed_from"] == 3
    assert resumed["rows"] == whole["rows"]
    for name, value in whole["weights"].items():
        assert torch.equal(resumed["weights"][name], value)


@pytest.mark.slow
def test_compiled_layers_train_as_plain_ones(alone: dict[str, Any], tmp_path: Path) -> None:
    assert_alike(trained(tmp_path, 1, params={"compile": True}), alone)


def fail_in_one(argument: str) -> None:
    """The second worker finds an error while the first waits for it."""
    with joined() as workers:
        if workers.rank == 1:
            raise DataError(["line 3: no text", argument], hint="look there")
        workers.agreed(workers.gathered(1))


def test_the_error_of_one_worker_is_that_of_all() -> None:
    with pytest.raises(DataError) as found:
        launch(fail_in_one, "line 4: no answer", 2)
    assert found.value.problems == ("line 3: no text", "line 4: no answer")
    assert found.value.hint == "look there"


def exchange(argument: str) -> None:
    """Everything that workers say to each other, checked by each of them."""
    with joined() as workers:
        mine = torch.tensor([float(workers.rank), 1.0])
        workers.sum([mine])
        assert mine.tolist() == [1.0, 2.0]
        assert workers.totals([0.5, workers.rank + 1]) == [1.0, 3.0]
        assert workers.agreed(f"by {workers.rank}") == "by 0"
        assert workers.gathered(workers.rank * 10) == [0, 10]
        weights = torch.full((2,), float(workers.rank) + 7.0)
        workers.copy_from_main([weights])
        assert weights.tolist() == [7.0, 7.0]
        assert world() == World(workers.rank, 2)
        if workers.is_main:
            Path(argument).write_text("done")


def test_workers_exchange_what_they_have(tmp_path: Path) -> None:
    launch(exchange, str(tmp_path / "result"), 2)
    assert (tmp_path / "result").read_text() == "done"


def wait_for_ever(argument: str) -> None:
    with joined() as workers:
        Path(argument, str(workers.rank)).write_text(str(os.getpid()))
        time.sleep(600)


def test_a_killed_parent_leaves_no_workers_behind(tmp_path: Path) -> None:
    code = (
        "import sys; from rag.finetune.workers import launch; "
        "from tests.finetune.test_workers import wait_for_ever; "
        "launch(wait_for_ever, sys.argv[1], 2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
    wait_until(lambda: all((tmp_path / name).is_file() for name in "01"))
    workers = [psutil.Process(int((tmp_path / name).read_text())) for name in "01"]
    assert all(worker.ppid() == parent.pid for worker in workers)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_alive, workers)))


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
