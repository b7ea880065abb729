"""`python -m rag STAGE`: one stage, as DVC calls it, in the project's folder.

`RAGLOOP_ROOT` names another folder for params.yaml and data/; models that params.yaml names by a
relative path are still looked for from the working directory.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from rag.artifacts import Artifacts
from rag.errors import InputError, RagError
from rag.finetune.workers import is_started_by_a_launcher, joined, launch, rank
from rag.params import Params, load_params
from rag.stages import STAGES, run_stage
from rag.startup import spare_collector

#: The folder that a stage works in, where it is not the working directory.
ROOT_VARIABLE = "RAGLOOP_ROOT"
_TRAINING = ("train_retriever", "train_reader")


def main(arguments: list[str]) -> int:
    """Runs the stage and returns its exit code; an error is one clear line, with no traceback."""
    names = [stage.name for stage in STAGES]
    if len(arguments) != 1 or arguments[0] not in names:
        print("usage: python -m rag STAGE, with STAGE one of:", file=sys.stderr)
        for stage in STAGES:
            print(f"  {stage.name:16} {stage.summary}", file=sys.stderr)
        return 2
    try:
        run(arguments[0])
    except InputError as error:
        for problem in error.problems:
            print(f"{arguments[0]}: {problem}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    except RagError as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return error.exit_code
    except FileNotFoundError as error:
        missing = error.filename or error  # pyarrow names the file in its message alone
        print(
            f"{arguments[0]}: {missing} is missing; run the stages before it: dvc repro",
            file=sys.stderr,
        )
        return 1
    return 0


def run(stage: str) -> None:
    """Runs a stage here, or a training stage in as many processes as params say.

    Where a launcher has started several of us, all train together and one does everything else.
    """
    _quiet_libraries()
    artifacts = Artifacts(Path(os.environ.get(ROOT_VARIABLE) or Path.cwd()))
    params = load_params(artifacts.params)
    processes = _training_processes(stage, params)
    if processes > 1 and not is_started_by_a_launcher():
        # By the name that it is imported by: a new process has another `__main__`.
        launch(import_module("rag.__main__").run, stage, processes)
    elif stage in _TRAINING:
        with joined(), _timed(stage, artifacts):
            run_stage(stage, params, artifacts)
    elif rank() == 0:
        with _timed(stage, artifacts):
            run_stage(stage, params, artifacts)


@contextmanager
def _timed(stage: str, artifacts: Artifacts) -> Iterator[None]:
    """Writes when the stage's own function began and ended (seconds since the epoch), and its CPU.

    What a run takes beyond these times is overhead: benchmarks/overhead.py adds it up.
    """
    began, cpu_began = time.time(), _cpu_seconds()
    yield
    if rank() == 0:
        artifacts.stage_times.mkdir(parents=True, exist_ok=True)
        cpu_seconds = _cpu_seconds() - cpu_began
        times = {"began": began, "ended": time.time(), "cpu_seconds": cpu_seconds}
        path = artifacts.stage_times / f"{stage}.json"
        path.write_text(json.dumps(times), encoding="utf-8")


def _cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _training_processes(stage: str, params: Params) -> int:
    if stage == "train_reader":
        return params.reader.training.processes
    if stage == "train_retriever" and params.retriever.mode != "none":
        return params.retriever.training.processes
    return 1


def _quiet_libraries() -> None:
    """Libraries' own bars and notices hide ours; the hub is asked only by a model that needs it."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)


if __name__ == "__main__":
    spare_collector()
    sys.exit(main(sys.argv[1:]))
