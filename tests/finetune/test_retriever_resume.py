"""The train_retriever stage, killed twice, ends with the bytes of one that was never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.params import Params
from tests.retrieval_toy import contents
from tests.toy import REPOSITORY

pytestmark = pytest.mark.integration

#: Runs the stage, and kills the process (if asked to) as a step begins; prints the steps begun.
STAGE = """
import os, signal, sys
from pathlib import Path
from rag.artifacts import Artifacts
from rag.finetune.contrastive import ContrastiveTraining
from rag.finetune.retriever import tune_retriever
from rag.params import Params
steps, loss = [], ContrastiveTraining.loss
def counted(self, batch):
    steps.append(batch)
    if len(steps) == {fatal}:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, batch)
ContrastiveTraining.loss = counted
root = Path(sys.argv[1])
params = Params.model_validate_json((root / "params.json").read_text())
tune_retriever(params, Artifacts(root))
print(len(steps))
"""


def run_stage(artifacts: Artifacts, params: Params, *, fatal: int = 0, hash_seed: int = 0) -> Any:
    (artifacts.root / "params.json").write_text(params.model_dump_json(), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-c", STAGE.format(fatal=fatal), str(artifacts.root)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("mode", [pytest.param("query", marks=pytest.mark.slow), "full"])
def test_a_killed_stage_goes_on_and_ends_bit_for_bit_the_same(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params], mode: str
) -> None:
    """Its adapter's dropout makes the result depend on the random numbers that are kept."""
    settings = tuning(
        mode,
        "retriever.training.lora={rank: 4, alpha: 8, dropout: 0.2}",
        "retriever.training.mini_batch=4",
        "retriever.training.hard_negatives=1",
        "retriever.training.mining_rounds=2",
    )
    whole, killed = corpus("whole"), corpus("killed")
    finished = run_stage(whole, settings)
    finished.check_returncode()
    steps = int(finished.stdout.splitlines()[-1])
    round_steps = steps // 2
    evaluated = round(round_steps / 4)

    # In the first round, after its first evaluation; then in the second.
    stopped = run_stage(killed, settings, fatal=evaluated + 2)
    assert stopped.returncode == -signal.SIGKILL
    assert not (killed.query_encoder / "training.json").exists()
    assert not (killed.query_encoder / "encoder.json").exists()
    again = run_stage(killed, settings, fatal=round_steps - evaluated + evaluated + 2)
    assert again.returncode == -signal.SIGKILL
    resumed = run_stage(killed, settings, hash_seed=5)
    resumed.check_returncode()
    assert int(resumed.stdout.splitlines()[-1]) == round_steps - evaluated
    assert contents(killed.retriever) == contents(whole.retriever)
    assert not any(killed.checkpoints.iterdir())
