"""The search `tune`: trials of other parameters, judged on the dev questions alone.

    ragloop tune --trials 20

data as it is -> the study -> trials, each: params -> stages that no trial has run yet -> the dev
metric -> told to Optuna and MLflow. A trial that falls behind is stopped as its dev evaluations
appear. Killed and started again, the search goes on with the same study: see `tune_study`. It holds
a lock of its own and writes below `.ragloop/tune/` only, so a retraining may run meanwhile.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import TrialState

from flows import lock, manual, terminal, tune_study
from flows.key import code_hash
from flows.snapshot import is_empty
from flows.tune_result import dev_value, evaluations, found, history_of, trial_values
from flows.tune_runs import StudyRuns, TrialRun
from flows.tune_stages import StudyStages, folder_hash, settings_read
from rag.artifacts import Artifacts
from rag.errors import DataError, RagError
from rag.params import Params
from rag.records import sorted_json
from rag.search_space import (
    LAST_STAGE,
    METRIC,
    Dimension,
    current_values,
    search_space,
    with_values,
)
from rag.weights import file_sha256, weights_digest

#: When these many trials have ended and each went wrong, the rest would too.
GIVE_UP_AFTER = 3
_KEY_LENGTH = 12


class _Pruned(Exception):
    """The trial is below the median of the others."""


class _Stopped(Exception):
    """The search ends before the trial does."""


def tune(
    artifacts: Artifacts,
    params: Params,
    *,
    trials: int | None = None,
    timeout_minutes: float | None = None,
) -> dict[str, Any]:
    """Searches until the study has `trials` that ended, or time is up; returns what came of it.

    See `tune_result.found` for the result. Raises BusyError while another search of this project
    runs, and RagError where no trial completes.
    """
    dimensions = search_space(params)
    if is_empty(artifacts.raw):
        raise DataError(
            "data/raw/ is empty: there is nothing to learn from",
            hint="take in documents and questions with: ragloop data import PATH",
        )
    folder = artifacts.state / "tune"
    with lock.hold(folder / "lock", "ragloop tune"):
        manual.check_models(artifacts, params)
        data_hash = folder_hash(artifacts.raw)
        name = study_name(artifacts, params, dimensions, data_hash)
        stages = StudyStages(artifacts, folder / name, LAST_STAGE[params.tune.objective])
        stages.take_data(data_hash)
        study = tune_study.open_study(name, params, artifacts.state / "optuna.db")
        runs = StudyRuns.open(artifacts, params, name)
        search = _Search(params, dimensions, study, stages, runs)
        try:
            search.run(trials or params.tune.trials, timeout_minutes)
            result = found(study, params, dimensions)
        except BaseException:
            runs.finish(None)
            raise
        runs.finish(result)
    return result


def study_name(
    artifacts: Artifacts, params: Params, dimensions: tuple[Dimension, ...], data_hash: str
) -> str:
    """`tune` and 12 digits over all that a trial's value depends on, but what is searched.

    So what was found may be written to params.yaml and the study still goes on.
    """
    objective = params.tune.objective
    settings = params.model_dump(mode="json")
    read = settings_read(artifacts.root / "dvc.yaml", LAST_STAGE[objective], settings)
    flat = {key: value for key, value in params.flat().items() if _is_read(key, read)}
    made_from = {
        "data": data_hash,
        "code": code_hash(artifacts.root / "rag"),
        "pipeline": file_sha256(artifacts.root / "dvc.yaml"),
        "params": {
            key: value
            for key, value in flat.items()
            if not any(key == item.key or key.startswith(f"{item.key}.") for item in dimensions)
        },
        "models": [weights_digest(model, revision) for model, revision in params.models()],
        "search": {
            key: settings["tune"][key]
            for key in ("objective", "space", "startup_trials", "pruner", "pruner_trials")
        },
        "seed": params.seed,
        "optuna": optuna.__version__,
    }
    digest = hashlib.sha256(sorted_json(made_from).encode()).hexdigest()
    return f"tune{digest[:_KEY_LENGTH]}"


class _Search:
    """The workers of one start of a study."""

    def __init__(
        self,
        params: Params,
        dimensions: tuple[Dimension, ...],
        study: optuna.Study,
        stages: StudyStages,
        runs: StudyRuns,
    ) -> None:
        self._params, self._dimensions = params, dimensions
        self._study, self._stages, self._runs = study, stages, runs
        self._space = tune_study.distributions(dimensions)
        self._asking, self._stop = threading.Lock(), threading.Event()
        self._limit, self._deadline = 0, float("inf")

    def run(self, limit: int, timeout_minutes: float | None) -> None:
        """Goes on until `limit` trials of the study have ended."""
        self._limit = limit
        if timeout_minutes is not None:
            self._deadline = time.monotonic() + 60 * timeout_minutes
        self._recover()
        if not self._study.get_trials(deepcopy=False):
            now = current_values(self._params, self._dimensions)
            if now is not None:
                self._study.enqueue_trial(now)
        workers = self._params.tune.workers
        try:
            with ThreadPoolExecutor(workers, thread_name_prefix="trial") as pool:
                working = [pool.submit(self._work) for _ in range(workers)]
                try:
                    wait(working, return_when=FIRST_EXCEPTION)
                finally:
                    if not all(item.done() and not item.exception() for item in working):
                        self._stop.set()
                for item in working:
                    item.result()
        except KeyboardInterrupt:
            raise RagError("stopped; `ragloop tune` goes on with this study") from None
        finally:
            self._recover()

    def _recover(self) -> None:
        keys = [item.key for item in self._dimensions]
        shared = self._params.tune.storage is not None
        if dead := tune_study.recover(self._study, keys, shared=shared):
            terminal.say(f"  [dim]{dead} trial{'s' * (dead > 1)} stopped midway: asked again[/]")

    def _work(self) -> None:
        while (trial := self._next()) is not None:
            self._try(trial)
            ended = tune_study.finished(self._study)
            if len(ended) >= GIVE_UP_AFTER and all(map(tune_study.error_of, ended)):
                raise RagError(
                    f"each of {len(ended)} trials went wrong, the last one so: "
                    f"{tune_study.error_of(ended[-1])}"
                )

    def _next(self) -> optuna.Trial | None:
        with self._asking:
            taken = len(tune_study.finished(self._study)) + tune_study.at_work(self._study)
            if self._stop.is_set() or self._is_late() or taken >= self._limit:
                return None
            return tune_study.ask(self._study, self._space)

    def _try(self, trial: optuna.Trial) -> None:
        number = int(trial.user_attrs["position"])
        values = trial_values(self._dimensions, trial.params)
        with _shown(f"trial {number}", alone=self._params.tune.workers == 1) as say:
            run = self._runs.trial(number, values)
            try:
                value = self._value(trial, run, values)
            except _Pruned:
                run.finish("pruned")
                self._study.tell(trial, state=TrialState.PRUNED)
                say(f"pruned       {_spoken(values)}")
            except _Stopped:
                run.finish("stopped")
                say("stopped")
            except RagError as error:
                run.finish("failed")
                tune_study.fail(self._study, trial, error)
                say(f"failed: {error}", failed=True)
            else:
                # Killed before the store knows, the trial is asked again and logs the same.
                run.finish("completed")
                self._study.tell(trial, value)
                self._runs.log_best(number, tune_study.best(self._study))
                say(f"{METRIC[self._params.tune.objective]} {value:6.2f}  {_spoken(values)}")

    def _value(self, trial: optuna.Trial, run: TrialRun, values: Mapping[str, Any]) -> float:
        objective = self._params.tune.objective
        params = with_values(self._params, values)
        run.log_params(params)
        seen: set[int] = set()

        def poll() -> None:
            if self._stop.is_set() or self._is_late():
                raise _Stopped

        def watch(artifacts: Artifacts) -> None:
            path = history_of(artifacts, objective)
            for step, value in evaluations(path, METRIC[objective]):
                if step not in seen:
                    seen.add(step)
                    trial.report(value, step)
                    if trial.should_prune():
                        run.follow(path)
                        raise _Pruned
            run.follow(path)

        try:
            artifacts = self._stages.run(params, watch, poll)
        except (_Pruned, RagError):
            self._stages.drop_unfinished(params)
            raise
        return dev_value(artifacts, objective)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline


def _is_read(key: str, read: Mapping[str, Any]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in read)


def _spoken(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in values.items())


@contextmanager
def _shown(name: str, *, alone: bool) -> Iterator[Callable[..., None]]:
    """One line for a trial when it has ended; with a spinner where no other trial has one."""
    if not alone:
        from rich.markup import escape

        def say(detail: str, *, failed: bool = False) -> None:
            mark = "[red]✗[/]" if failed else "[green]✓[/]"
            terminal.say(f"  {mark} {name:16} {escape(detail)}")

        yield say
        return
    with terminal.step(name) as step:

        def finish(detail: str, *, failed: bool = False) -> None:
            step.finish(detail)
            if failed:
                step.mark = "failed"

        yield finish
