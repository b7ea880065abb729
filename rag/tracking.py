"""The MLflow run of a retraining: found by its content key or created, so nothing is logged twice.

Stages know nothing of MLflow; a flow opens a `RunTracker` and hands it what the stages wrote. Only
what is listed here is logged: parameters that `Params` knows, files with fixed names, and URLs
without their credentials. The environment is never read into a run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.evaluation.report_data import CHAMPION
from rag.evaluation.summary import flat_metrics
from rag.params import Params
from rag.records import read_table
from rag.release import registry, store
from rag.release.answers import RELEASED, answers_table
from rag.release.bundle import refuse_pickles
from rag.release.card import decision_tags, read_metrics, run_note
from rag.release.curves import history_metrics, history_row, metric_name, system_metric
from rag.release.gate import Decision
from rag.release.inputs import dataset_inputs
from rag.release.links import run_links, run_page
from rag.release.redaction import without_credentials
from rag.release.reviewed import log_comparison
from rag.release.store import configure, experiment_id, initialise, tracking_uri
from rag.release.tables import review_tables
from rag.release.traces import log_traces, question_traces

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["RunTracker", "configure", "initialise", "metric_name", "tracking_uri"]

RUN_KEY = "ragloop.run_key"
Status = Literal["FINISHED", "FAILED", "KILLED"]

#: Sections of params.yaml that say how a run came out; where its stores and servers are does not.
LOGGED_SECTIONS = (
    *("seed", "prepare", "chunk", "retriever", "embed", "index", "retrieve", "reader"),
    *("evaluate", "gate"),
)
_BATCH = 100  # parameters that MLflow takes in one call
_METRICS_AT_ONCE = 1000
_ANSWERS = "answers.json"
_NOTE = "mlflow.note.content"


class RunTracker:
    """One MLflow run; every method may be repeated and logs the same thing once."""

    def __init__(
        self, client: MlflowClient, run_id: str, experiment_id: str, params: Params
    ) -> None:
        self._client = client
        self._params = params
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._champion_run: str | None = None
        self._offsets: dict[Path, int] = {}
        self._logged: dict[str, set[int]] = {}
        self._decision: Mapping[str, Any] | None = None
        self._metrics: Mapping[str, Any] | None = None
        self._traced: tuple[int, int] | None = None

    @classmethod
    def open(
        cls,
        artifacts: Artifacts,
        params: Params,
        *,
        key: str,
        name: str,
        tags: Mapping[str, str] | None = None,
    ) -> RunTracker:
        """The run of this content key, running again; it is created when there is none."""
        configure(artifacts, params)
        from mlflow import MlflowClient

        client = MlflowClient()
        experiment = experiment_id(client, artifacts, params)
        if not key.isalnum():
            raise ReleaseError(f"a run key is letters and digits, got {key!r}")
        found = client.search_runs(
            [experiment],
            f"tags.`{RUN_KEY}` = '{key}'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        if found:
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING", name=name)
        else:
            own = {RUN_KEY: key, store.PROJECT: store.project_id(artifacts)}
            own |= {"mlflow.source.name": "ragloop", "mlflow.source.type": "JOB"}
            own = {"ragloop.decision": "none yet", **own}  # pages list tags as they were set
            run_id = client.create_run(experiment, run_name=name, tags=own).info.run_id
        tracker = cls(client, run_id, experiment, params)
        tracker.set_tags(tags or {})
        return tracker

    @property
    def page(self) -> str:
        """The run's page below the address of an MLflow server."""
        return run_page(self.experiment_id, self.run_id)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets `ragloop.` tags; a git commit is also set where MLflow shows it."""
        for name, value in tags.items():
            text = str(without_credentials(value))
            self._client.set_tag(self.run_id, f"ragloop.{name.removeprefix('ragloop.')}", text)
            if name == "git_commit":
                self._client.set_tag(self.run_id, "mlflow.source.git.commit", text)

    def log_params(self, params: Params | Mapping[str, Any]) -> None:
        """Logs flat parameters of the sections that decide the result, and no others."""
        from mlflow.entities import Param

        flat = params.flat() if isinstance(params, Params) else dict(params)
        known = self._client.get_run(self.run_id).data.params
        new = [
            Param(name.replace("@", "_at_"), str(without_credentials(value)))
            for name, value in sorted(flat.items())
            if name.partition(".")[0] in LOGGED_SECTIONS and name.replace("@", "_at_") not in known
        ]
        for start in range(0, len(new), _BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + _BATCH])

    def follow_history(self, path: Path, group: str = "") -> int:
        """Logs the lines of history.jsonl that are new since the last call; returns how many.

        `dev_f1` becomes `dev/f1`, `loss` becomes `train/loss`, each below `group`, at the line's
        step. A last line
        without its end is left for the next call; a step that the run has already is not logged
        again, also when the file was written anew by a resumed stage.
        """
        if not path.exists():
            return 0
        with path.open("rb") as file:
            size = file.seek(0, 2)
            offset = self._offsets.get(path, 0)
            offset = offset if offset <= size else 0
            file.seek(offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        rows = [history_row(line, path) for line in whole.splitlines() if line.strip()]
        values = [
            (name, value, int(row["step"]))
            for row in rows
            for name, value in history_metrics(row, group)
            if int(row["step"]) not in self._steps(name)
        ]
        self._log_metrics(values)
        for name, _, step in values:
            self._steps(name).add(step)
        self._offsets[path] = offset + len(whole)
        return len(rows)

    def log_data(self, artifacts: Artifacts, data_hash: str) -> None:
        """Names the documents and the questions of each split as inputs of the run."""
        inputs = dataset_inputs(artifacts, data_hash)
        self._client.log_inputs(self.run_id, datasets=inputs)

    def log_evaluation(self, artifacts: Artifacts) -> None:
        """Logs final metrics with their intervals, report, plots, predictions and answers."""
        self._metrics = read_metrics(artifacts.metrics)
        known = self._client.get_run(self.run_id).data.metrics
        values = []
        for system, name, value in flat_metrics(self._metrics):
            if known.get(system_metric(system, name)) != value:
                values.append((system_metric(system, name), value, 0))
        for path in sorted(artifacts.speed.glob("*.json")):
            for name, value in json.loads(path.read_text(encoding="utf-8")).items():
                values.append((metric_name("speed", path.stem, name), float(value), 0))
        self._log_metrics(values)
        for path in (artifacts.metrics, artifacts.report, artifacts.predictions):
            self._client.log_artifact(self.run_id, str(path))
        if artifacts.plots.is_dir():
            self._client.log_artifacts(self.run_id, str(artifacts.plots), "plots")
        self._log_tables(read_table(artifacts.predictions), self._metrics)
        self._write_note()

    def log_review(self, page: str, predictions: pa.Table, metrics: Mapping[str, Any]) -> None:
        """Logs report, numbers and tables again, with the champion's answers in them."""
        self._client.log_text(self.run_id, page, "report.html")
        log_comparison(self._client, self.run_id, metrics)
        self._metrics = metrics
        self._log_tables(predictions, metrics)

    def log_traces(self, predictions: pa.Table, *, limit: int) -> int:
        """Makes at most `limit` test questions traces of the run; returns how many it has.

        Changed and wrong answers come first. They belong to the run, and to the checkpoint that
        gave the answers where one is logged.
        """
        reference = CHAMPION if CHAMPION in predictions["system"].to_pylist() else None
        traces = question_traces(predictions, reference, limit)
        models = self._client.get_run(self.run_id).outputs
        logged = models.model_outputs if models else []
        log_traces(
            traces,
            experiment_id=self.experiment_id,
            run_id=self.run_id,
            model_id=logged[0].model_id if logged else None,
        )
        asked = predictions.filter(pc.equal(predictions["system"], RELEASED)).num_rows
        self._traced = (len(traces), asked)
        self._write_note()
        return len(traces)

    def log_decision(self, decision: Decision | Mapping[str, Any]) -> None:
        """Logs the gate's decision as `decision.json`, as tags and in the run's description."""
        record = decision.to_json() if isinstance(decision, Decision) else dict(decision)
        self._decision = record
        self._client.log_dict(self.run_id, record, "decision.json")
        live = registry.champion(self._params)
        self._champion_run = live.run_id if live else None
        before = {"champion_before": live.version if live else "none"}
        self.set_tags({**decision_tags(record), **before})
        self._write_note()

    def log_checkpoint(
        self, folder: Path, *, name: str, step: int, metrics: Mapping[str, float]
    ) -> str:
        """Logs a folder of weights as an MLflow logged model of this step; returns its id."""
        from mlflow.entities import LoggedModelOutput

        logged = f"source_run_id = '{self.run_id}' AND name = '{name}'"
        for model in self._client.search_logged_models([self.experiment_id], logged):
            if model.tags.get("ragloop.step") == str(step) and model.status == "READY":
                return str(model.model_id)
        refuse_pickles(path for path in folder.rglob("*") if path.is_file())
        model = self._client.create_logged_model(
            self.experiment_id,
            name=name,
            source_run_id=self.run_id,
            tags={"ragloop.step": str(step)},
            model_type="checkpoint",
        )
        self._client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=step)])
        self._client.log_model_artifacts(model.model_id, str(folder))
        for metric, value in metrics.items():
            key = metric_name(*metric.split("_", 1)) if metric.startswith("dev_") else metric
            self._client.log_metric(
                self.run_id, metric_name(key), value, step=step, model_id=model.model_id
            )
        self._client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def finish(self, status: Status = "FINISHED") -> None:
        """Ends the run."""
        self._client.set_terminated(self.run_id, status)

    def _write_note(self) -> None:
        links = run_links(self.experiment_id, self.run_id, self._champion_run)
        note = run_note(self._metrics, self._decision, links if self._metrics else "")
        if self._traced is not None:
            number, asked = self._traced
            note += (
                f"\n\nTraces: {number} of {asked} test questions, changed and wrong answers first "
                "(`tracking.traces` sets how many)."
            )
        self._client.set_tag(self.run_id, _NOTE, note)

    def _log_tables(self, predictions: pa.Table, metrics: Mapping[str, Any]) -> None:
        tables = review_tables(metrics, self._decision)
        tables[_ANSWERS] = answers_table(predictions)
        # log_table would append to the table of an earlier attempt.
        for name, table in tables.items():
            self._client.log_text(self.run_id, json.dumps(table, ensure_ascii=False), name)
        logged = json.dumps([{"path": name, "type": "table"} for name in tables])
        self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", logged)

    def _steps(self, name: str) -> set[int]:
        """Steps at which the run has this metric."""
        if name not in self._logged:
            history = self._client.get_metric_history(self.run_id, name)
            self._logged[name] = {metric.step for metric in history}
        return self._logged[name]

    def _log_metrics(self, values: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in values]
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            self._client.log_batch(self.run_id, metrics[start : start + _METRICS_AT_ONCE])
