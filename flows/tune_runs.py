"""A search in MLflow: one run for the study, and nested below it one for each trial.

They stand in an experiment of their own, `<tracking.experiment>-tune`: what closes dead runs and
prunes old ones when a retraining starts looks at the retrainings' experiment only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag.artifacts import Artifacts
from rag.params import Params
from rag.search_space import METRIC
from rag.tracking import RunTracker, metric_name

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_PARENT = "mlflow.parentRunId"
_STATUS: Mapping[str, Literal["FINISHED", "FAILED", "KILLED"]] = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
}


class TrialRun:
    """The run of one trial."""

    def __init__(self, tracker: RunTracker, group: str) -> None:
        self._tracker, self._group = tracker, group

    def log_params(self, params: Params) -> None:
        self._tracker.log_params(params)

    def follow(self, history: Path) -> None:
        """New lines of the curve; what MLflow does not take now it is given at the next call."""
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):
            self._tracker.follow_history(history, self._group)

    def finish(self, state: str) -> None:
        """Ends the run: completed, pruned, failed or stopped."""
        self._tracker.set_tags({"trial_state": state})
        self._tracker.finish(_STATUS[state])


class StudyRuns:
    """The run of a study; a search that goes on logs into the same runs."""

    def __init__(
        self, artifacts: Artifacts, params: Params, name: str, tracker: RunTracker
    ) -> None:
        self._artifacts, self._params, self._name = artifacts, params, name
        self._tracker = tracker
        self._group = "retriever/" if params.tune.objective == "retriever" else ""

    @classmethod
    def open(cls, artifacts: Artifacts, params: Params, name: str) -> StudyRuns:
        """The run of the study of this name."""
        experiment = f"{params.tracking.experiment}-tune"
        tracking = params.tracking.model_copy(update={"experiment": experiment})
        params = params.model_copy(update={"tracking": tracking})
        tags = {"study": name, "objective": METRIC[params.tune.objective]}
        tracker = RunTracker.open(artifacts, params, key=name, name=name, tags=tags)
        tracker.log_params(params)
        return cls(artifacts, params, name, tracker)

    def trial(self, number: int, values: Mapping[str, Any]) -> TrialRun:
        """The run of a trial, nested below the study's."""
        from mlflow import MlflowClient

        tags = {"study": self._name, "trial": str(number)}
        tags |= {f"tune.{key}": str(value) for key, value in values.items()}
        key, name = f"{self._name}trial{number}", f"trial-{number}"
        tracker = RunTracker.open(self._artifacts, self._params, key=key, name=name, tags=tags)
        MlflowClient().set_tag(tracker.run_id, _PARENT, self._tracker.run_id)
        return TrialRun(tracker, self._group)

    def log_best(self, number: int, best: FrozenTrial | None) -> None:
        """The best value so far, at the trial it was known after."""
        if best is not None and best.value is not None:
            self._log_best(best.value, number)

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """Ends the study's run with its result; without one as stopped."""
        from mlflow import MlflowClient

        if result is not None:
            MlflowClient().log_dict(self._tracker.run_id, dict(result), "study.json")
            self._tracker.set_tags({"best_trial": str(result["best"]["trial"])})
            self._log_best(result["best"]["value"], max(row["trial"] for row in result["rows"]))
        self._tracker.finish("FINISHED" if result is not None else "KILLED")

    def _log_best(self, value: float, step: int) -> None:
        from mlflow import MlflowClient

        name = metric_name("best", METRIC[self._params.tune.objective].removeprefix("dev_"))
        MlflowClient().log_metric(self._tracker.run_id, name, value, step=step)
