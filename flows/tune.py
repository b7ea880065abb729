"""The search `tune`: trials of other parameters, judged on the dev questions alone.

    ragloop tune --trials 20

data as it is -> the study -> trials, each: params -> stages that no trial has run yet -> the dev
metric -> told to Optuna and MLflow. A trial that falls behind is stopped as its dev evaluations
appear. Killed and started again, the search goes on with the same study: see `tune_study`. It holds
a lock of its own and writes below `.ragloop/tune/` only, so a retraining may run meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from flows import lock, manual, terminal, tune_study
from flows.key import code_hash
from flows.snapshot import is_empty
from flows.tune_runs import StudyRuns, TrialRun
from flows.tune_stages import StudyStages, folder_hash, settings_read
from rag.artifacts import Artifacts
from rag.errors import DataError, RagError
from rag.params import Params
from rag.reading.reader import read_manifest
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

    See `found` for the result. Raises BusyError while another search of this project runs, and
    RagError where no trial completes.
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


def found(study: optuna.Study, params: Params, dimensions: tuple[Dimension, ...]) -> dict[str, Any]:
    """What the study knows: the best trial, the current values' own, importance, every trial.

    RagError where no trial has completed.
    """
    ended = sorted(tune_study.finished(study), key=lambda item: tune_study.position(study, item))
    best = tune_study.best(study)
    if best is None:
        failed = [tune_study.error_of(item) for item in ended if tune_study.error_of(item)]
        raise RagError(failed[-1] if failed else "no trial has completed; give it more time")

    def row(item: FrozenTrial) -> dict[str, Any]:
        return {
            "trial": tune_study.position(study, item),
            "state": item.state.name.lower(),
            "value": item.value,
            "params": _values(dimensions, item.params),
            **({"error": tune_study.error_of(item)} if tune_study.error_of(item) else {}),
        }

    rows = [row(item) for item in ended]
    now = current_values(params, dimensions)
    current = [item for item in rows if now and item["params"] == _values(dimensions, now)]
    return {
        "study": study.study_name,
        "metric": METRIC[params.tune.objective],
        "trials": {
            state: sum(item["state"] == state for item in rows)
            for state in ("complete", "pruned", "fail")
        },
        "best": row(best),
        "current": current[0] if current else None,
        "importance": tune_study.importance(study),
        "rows": rows,
    }


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
        values = _values(self._dimensions, trial.params)
        with _shown(f"trial {number}", alone=self._params.tune.workers == 1) as say:
            run = self._runs.trial(number, values)
            try:
                value = self._value(trial, run, values)
            except _Pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
                run.finish("pruned")
                say(f"pruned       {_spoken(values)}")
            except _Stopped:
                run.finish("stopped")
                say("stopped")
            except RagError as error:
                tune_study.fail(self._study, trial, error)
                run.finish("failed")
                say(f"failed: {error}")
            else:
                self._study.tell(trial, value)
                run.finish("completed")
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


def history_of(artifacts: Artifacts, objective: str) -> Path:
    """The curve that the last stage of a trial writes."""
    return artifacts.history if objective == "reader" else artifacts.retriever_history


def evaluations(history: Path, metric: str) -> list[tuple[int, float]]:
    """The dev evaluations that a curve holds so far, counted: the untrained state is number 0.

    Counted rather than by their step, so that trials of other batch sizes can be compared.
    """
    try:
        lines = history.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    rows = [row for row in map(json.loads, lines) if metric in row]
    first = 0 if rows and rows[0]["step"] == 0 else 1
    return [(number, float(row[metric])) for number, row in enumerate(rows, start=first)]


def dev_value(artifacts: Artifacts, objective: str) -> float:
    """The dev metric of what the last stage kept, in percent."""
    if objective == "reader":
        return float(read_manifest(artifacts.reader)["dev"][METRIC[objective]])
    report = artifacts.query_encoder / "training.json"
    after = json.loads(report.read_text(encoding="utf-8"))["dev"]["after"]
    return float(after[METRIC[objective].removeprefix("dev_")])


def _is_read(key: str, read: Mapping[str, Any]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in read)


def _values(dimensions: tuple[Dimension, ...], sampled: Mapping[str, Any]) -> dict[str, Any]:
    return {item.key: item.value(sampled[item.key]) for item in dimensions if item.key in sampled}


def _spoken(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in values.items())


@contextmanager
def _shown(name: str, *, alone: bool) -> Iterator[Any]:
    """One line for a trial when it has ended; with a spinner where no other trial has one."""
    if alone:
        with terminal.step(name) as step:
            yield step.finish
        return
    said: list[str] = []
    yield said.append
    terminal.say(f"  {name:16} {' '.join(said)}")
