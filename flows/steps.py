"""How a function becomes a step of a flow: a Prefect task with one line on the terminal."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows import dvc, terminal
from rag.errors import RagError
from rag.progress import read_progress

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from pyarrow import Table

    from rag.artifacts import Artifacts
    from rag.params import Params
    from rag.release.gate import Decision
    from rag.stages import Stage
    from rag.tracking import RunTracker

P = ParamSpec("P")
R = TypeVar("R")

_RETRY_DELAYS_SECONDS: list[float] = [2, 10]


def io_task(
    name: str, function: Callable[P, R], detail: Callable[[R], str] = lambda _: ""
) -> Task[P, R]:
    """A task that talks to a store or a server: tried again where that fails for the moment."""
    return _task(name, function, detail, retries=len(_RETRY_DELAYS_SECONDS))


def quiet_io_task(name: str, function: Callable[P, R]) -> Task[P, R]:
    """An `io_task` without a line on the terminal."""
    return Task(
        function,
        name=name,
        task_run_name=name,
        retries=len(_RETRY_DELAYS_SECONDS),
        retry_delay_seconds=_RETRY_DELAYS_SECONDS,
        retry_condition_fn=_may_pass,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def task(
    name: str, function: Callable[P, R], detail: Callable[[R], str] = lambda _: ""
) -> Task[P, R]:
    """A task that calls one function, once."""
    return _task(name, function, detail, retries=0)


def stage_task(stage: Stage) -> Task[..., dvc.StageRun]:
    """The task of one stage, run by DVC; its state is called Cached where nothing changed."""

    def run(
        artifacts: Artifacts,
        tracker: RunTracker | None,
        *,
        force: bool,
        timeout_seconds: float | None = None,
    ) -> State[dvc.StageRun]:
        logger = get_run_logger()
        history = _History(*_curve(stage, artifacts), tracker)
        with terminal.step(stage.name) as step:

            def poll() -> None:
                history.follow()
                progress = read_progress(dvc.progress_file(artifacts))
                if progress:
                    step.advance_to(*progress)

            done = dvc.reproduce(
                stage.name,
                artifacts,
                force=force,
                on_line=logger.info,
                poll=poll,
                timeout_seconds=timeout_seconds,
            )
            history.finish()
            cached = done.result == "Cached"
            step.finish("unchanged" if cached else stage.summary.rstrip("."), same=cached)
        return Completed(name=done.result if cached else "Completed", data=done)

    return Task[..., Any](
        run,
        name=stage.name,
        task_run_name=stage.name,
        description=stage.summary,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def publish_index(params: Params, artifacts: Artifacts) -> str:
    """The index of these embeddings where params say, its loss of recall on the terminal."""
    from rag.stages import build_index

    return build_index(params, artifacts, say=terminal.say)


def log_results(tracker: RunTracker, artifacts: Artifacts, tags: Mapping[str, str]) -> None:
    """All that the stages left, into the MLflow run; the reader as checkpoint of its best step."""
    tracker.set_tags(tags)
    tracker.log_data(artifacts, tags["data_hash"])
    tracker.log_evaluation(artifacts)
    reader = json.loads((artifacts.reader / "reader.json").read_text(encoding="utf-8"))
    tracker.log_checkpoint(
        artifacts.reader,
        name="reader",
        step=int(reader["best_step"]),
        metrics={
            f"dev_{name.removeprefix('dev_')}": value for name, value in reader["dev"].items()
        },
    )


def log_review(
    tracker: RunTracker,
    params: Params,
    artifacts: Artifacts,
    *,
    champion: Table | None,
    decision: Decision,
) -> int:
    """The final report with the champion and the decision, and traces; returns how many traces.

    Where the gate could not decide, the tables cannot be compared and the stage's report stays.
    """
    from rag.evaluation.review import review
    from rag.release.gate import Outcome

    if decision.outcome is Outcome.ERROR:
        return 0
    found = review(params, artifacts, champion=champion, decision=decision.to_json())
    tracker.log_review(found.page, found.predictions, found.metrics)
    return tracker.log_traces(found.predictions, limit=params.tracking.traces)


def run_name() -> str:
    """What Prefect calls a run: its flow, and when it was made, in UTC."""
    from prefect.runtime import flow_run

    return f"{flow_run.flow_name or 'retrain'} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"


def is_scheduled() -> bool:
    """Whether this flow run was started by a deployment, not by hand on the command line."""
    from prefect.runtime import deployment

    return deployment.id is not None


def _curve(stage: Stage, artifacts: Artifacts) -> tuple[Path, str]:
    """The training curve that a stage writes, and the group of metrics that it goes to."""
    if stage.name == "train_retriever":
        return artifacts.retriever_history, "retriever/"
    return artifacts.history, ""


class _History:
    """Hands the training curve to MLflow as it grows, and only what this run has written."""

    def __init__(self, path: Path, group: str, tracker: RunTracker | None) -> None:
        self._path = path
        self._group = group
        self._tracker = tracker
        self._before = self._identity()

    def follow(self) -> None:
        """New lines, if the file is no longer the one that an earlier run left."""
        from mlflow.exceptions import MlflowException

        if self._tracker is None or self._identity() in (None, self._before):
            return
        try:
            self._tracker.follow_history(self._path, self._group)
        except MlflowException as error:
            # Training goes on; `finish` logs what is missing, or fails.
            get_run_logger().warning("MLflow is away for the moment: %s", error)

    def finish(self) -> None:
        """All lines, those of a stage that DVC had already too."""
        if self._tracker is not None:
            self._tracker.follow_history(self._path, self._group)

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _task(
    name: str, function: Callable[P, R], detail: Callable[[R], str], *, retries: int
) -> Task[P, R]:
    @functools.wraps(function)
    def shown(*args: P.args, **kwargs: P.kwargs) -> R:
        with terminal.step(name) as step:
            result = function(*args, **kwargs)
            step.finish(detail(result))
        return result

    return Task(
        shown,
        name=name,
        task_run_name=name,
        retries=retries,
        retry_delay_seconds=_RETRY_DELAYS_SECONDS[:retries],
        retry_condition_fn=_may_pass,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a failure may pass by itself: what we say clearly is wrong does not."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, RagError)
