"""The train_retriever stage in several processes, started by itself and by accelerate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from rag.artifacts import Artifacts
from rag.params import Params
from tests.retrieval_toy import contents
from tests.toy import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow]
#: Results are compared between processes, which must not differ in how they add up.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def project(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params]
) -> Callable[..., Artifacts]:
    """A project whose retriever is tuned in some processes."""

    def make(name: str, processes: int) -> Artifacts:
        artifacts = corpus(name)
        params = tuning(
            "full",
            "retriever.training.epochs=2",
            "retriever.training.hard_negatives=1",
            "retriever.training.batches_per_step=2",
            f"retriever.training.processes={processes}",
        )
        artifacts.params.write_text(params.model_dump_json(), encoding="utf-8")
        return artifacts

    return make


def run_stage(artifacts: Artifacts, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command, "rag", "train_retriever"],
        cwd=artifacts.root,
        env=os.environ | ONE_THREAD | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
        capture_output=True,
        text=True,
    )


def losses(artifacts: Artifacts) -> list[float]:
    lines = artifacts.retriever_history.read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def test_the_stage_in_two_processes_is_the_stage_in_one(project: Callable[..., Artifacts]) -> None:
    """Started by the stage itself, and by accelerate."""
    one, two, launched = project("one", 1), project("two", 2), project("launched", 1)
    accelerate = ("accelerate.commands.launch", "--cpu", "--num_processes=2", "-m")
    for artifacts, command in ((one, ()), (two, ()), (launched, accelerate)):
        done = run_stage(artifacts, *command)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("samples/s") == 1
        assert done.stdout.startswith("train_retriever: ")
        assert " % padding" in done.stdout
        speed = json.loads((artifacts.state / "speed" / "train_retriever.json").read_text())
        assert speed["samples"] == 96
        assert not any(artifacts.checkpoints.iterdir())
    expected = losses(one)
    assert len(expected) >= 4
    assert losses(two) == pytest.approx(expected, abs=1e-5)
    assert contents(launched.retriever) == contents(two.retriever)
    assert set(contents(one.retriever)) == set(contents(two.retriever))


def test_a_stage_that_fails_in_its_workers_is_one_line(project: Callable[..., Artifacts]) -> None:
    artifacts = project("broken", 2)
    artifacts.questions.unlink()
    done = run_stage(artifacts)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("train_retriever: ")
    assert "questions.parquet is missing; run the stages before it" in line
