"""Time and memory of two systems, each in a process of its own, asked the same questions in turn.

    python -m flows.cost PROJECT_FOLDER STATE_FOLDER

The process answers one question a line of its standard input and says how long it took. In turn,
because a machine that is busy for a minute must not make the one that is asked then look slow; each
in its own process, because memory is counted by process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import CostParams, load_params
from rag.records import read_questions

if TYPE_CHECKING:
    from rag.release.cost import CostSample

_STATUS = Path("/proc/self/status")


def measure(challenger: Artifacts, champion: Artifacts, params: CostParams) -> CostSample:
    """The fastest of all rounds for each question, and the peak memory of each process."""
    from rag.release.cost import CostSample

    questions = _sample(challenger, params.questions)
    fastest = {"champion": [float("inf")] * len(questions)}
    fastest["challenger"] = list(fastest["champion"])
    bytes_of = {}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(_Worker(challenger.root, system))
            for name, system in (("champion", champion), ("challenger", challenger))
        }
        for worker in workers.values():
            worker.ask(questions[0])  # warm
        for turn in range(params.rounds):
            for place, question in enumerate(questions):
                order = list(workers) if (turn + place) % 2 else list(reversed(workers))
                for name in order:
                    seconds = workers[name].ask(question)["seconds"]
                    fastest[name][place] = min(fastest[name][place], seconds)
        for name, worker in workers.items():
            bytes_of[name] = worker.ask(questions[-1])["bytes"]
    return CostSample(
        champion_seconds=tuple(fastest["champion"]),
        challenger_seconds=tuple(fastest["challenger"]),
        champion_bytes=bytes_of["champion"],
        challenger_bytes=bytes_of["challenger"],
    )


class _Worker:
    """A process that has one system loaded."""

    def __init__(self, folder: Path, system: Artifacts) -> None:
        self._root = system.root
        command = [sys.executable, "-m", "flows.cost", str(system.root), str(system.state)]
        # The code that measures is the code that runs, wherever the project lies.
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        """Its input ends, and so it does."""
        self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def ask(self, question: str) -> dict[str, Any]:
        """`{"seconds", "bytes"}` of answering it."""
        line = ""
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass
        if not line:
            raise RagError(
                f"the system in {self._root} ended while its time was measured; "
                "its message is above; gate.cost=null measures nothing"
            )
        return dict(json.loads(line))


def _sample(artifacts: Artifacts, count: int) -> Sequence[str]:
    """Test questions, evenly spread over the test set."""
    texts = [question.text for question in read_questions(artifacts.questions, "test")]
    step = max(1, len(texts) // count)
    return texts[::step][:count]


def _peak_bytes() -> int:
    """The peak resident memory of this process.

    Linux counts that of the parent in getrusage, because a process starts as its copy; its status
    file does not.
    """
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _serve(root: Path, state: Path) -> None:
    """Answers until the input ends. Libraries may print: results go where they cannot reach."""
    results, sys.stdout = sys.stdout, sys.stderr
    from rag.reading.answerer import QuestionAnswerer

    system = Artifacts(root, state_folder=state)
    answerer = QuestionAnswerer.load(system, load_params(system.params))
    try:
        for line in sys.stdin:
            started = time.perf_counter()
            answerer.answer([json.loads(line)])
            seconds = time.perf_counter() - started
            found = {"seconds": seconds, "bytes": _peak_bytes()}
            print(json.dumps(found), file=results, flush=True)
    finally:
        answerer.close()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))
