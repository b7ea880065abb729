"""A training that its time limit has stopped: the next run goes on from its checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import dvc, manual
from rag.artifacts import Artifacts
from rag.errors import RagError
from tests.integration.conftest import Finished, Project
from tests.integration.serving import family, is_at_work, is_program

pytestmark = pytest.mark.integration

STAGE = "train_reader"
#: Long enough to be seen at work, with a checkpoint after every step.
LONG = ("reader.training.epochs=40", "reader.training.checkpoint_minutes=1e-9")


@pytest.fixture
def trained(
    project: Project, first_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Artifacts:
    """A copy of the project that has run, about to train its reader for longer."""
    assert first_run.code == 0, first_run.err
    root = tmp_path / "project"
    shutil.copytree(project.root, root, symlinks=True)
    artifacts = Artifacts(root)
    manual.write_changes(artifacts, LONG)
    programs = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([programs, os.environ["PATH"]]))
    return artifacts


def training() -> list[psutil.Process]:
    """The stage's own process below us; `dvc` and the guard are at work for it."""
    return [one for one in family(os.getpid()) if is_program(one, "-m", "rag", STAGE)]


def weights(artifacts: Artifacts) -> dict[str, str]:
    files = [path for path in sorted(artifacts.reader.rglob("*")) if path.is_file()]
    return {
        path.relative_to(artifacts.reader).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def samples_trained(artifacts: Artifacts) -> int:
    """By the last process that trained, in this start of it."""
    facts = json.loads((artifacts.speed / f"{STAGE}.json").read_text(encoding="utf-8"))
    return int(facts["samples"])


def test_a_training_that_took_too_long_goes_on_from_its_checkpoint(trained: Artifacts) -> None:
    began = time.monotonic()
    assert dvc.reproduce(STAGE, trained).result == "Ran"
    limit = time.monotonic() - began + 2.0
    whole, samples = weights(trained), samples_trained(trained)
    assert "adapter/adapter_model.safetensors" in whole
    assert not list(trained.checkpoints.rglob("checkpoint.json")), "a finished training keeps none"
    stopped: list[psutil.Process] = []

    def hang() -> None:
        """Once it has a checkpoint, the training gets no further, whatever the machine's speed."""
        if not stopped and list(trained.checkpoints.rglob("checkpoint.json")):
            stopped.extend(training())
            for process in stopped:
                process.send_signal(signal.SIGSTOP)

    with pytest.raises(RagError, match=r"stopped after .* goes on from its last checkpoint"):
        dvc.reproduce(STAGE, trained, force=True, poll=hang, timeout_seconds=limit)
    assert stopped, "it was in the middle of its steps"
    assert not any(map(is_at_work, stopped))

    assert dvc.reproduce(STAGE, trained, force=True).result == "Ran"
    assert 0 < samples_trained(trained) < samples, "what was trained before is not trained again"
    assert weights(trained) == whole
