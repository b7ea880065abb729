"""`python -m rag STAGE`: one stage, as DVC calls it, in the project's folder."""

from __future__ import annotations

import os
import sys
import warnings

from rag.artifacts import Artifacts
from rag.errors import InputError, RagError
from rag.params import load_params
from rag.stages import STAGES, run_stage


def main(arguments: list[str]) -> int:
    """Runs the stage and returns its exit code; an error is one clear line, with no traceback."""
    names = [stage.name for stage in STAGES]
    if len(arguments) != 1 or arguments[0] not in names:
        print("usage: python -m rag STAGE, with STAGE one of:", file=sys.stderr)
        for stage in STAGES:
            print(f"  {stage.name:16} {stage.summary}", file=sys.stderr)
        return 2
    _quiet_libraries()
    artifacts = Artifacts.here()
    try:
        run_stage(arguments[0], load_params(artifacts.params), artifacts)
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
        print(
            f"{arguments[0]}: {error.filename} is missing; run the stages before it: dvc repro",
            file=sys.stderr,
        )
        return 1
    return 0


def _quiet_libraries() -> None:
    """Libraries' own bars and notices hide ours; the hub is asked only by a model that needs it."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
