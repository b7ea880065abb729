"""Metrics of an installation for Prometheus: what `ragloop metrics` prints.

Each group is read from what is there already (ledger, MLflow's store, speed files, watch.json,
Prefect's API when it is served) and writes nothing. A group that cannot be read is left out and
counted in `ragloop_source_up`: numbers that vanish must not look like numbers that are well.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows.prefect_facts import read_prefect, serving, task_runs, time_of
from rag.artifacts import Artifacts, folder_bytes
from rag.errors import RagError
from rag.params import Params

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Seconds after which a planned run that has not started is late.
_RUNS_LOOKED_AT = 5
_LATE_SECONDS = 180.0
_SUCCESS = frozenset({"PROMOTE", "REJECT", "INCONCLUSIVE", "PENDING", "DRY_RUN", "SAME"})


@dataclass(frozen=True, eq=False)
class InstallationCollector:
    """Reads the installation anew at every scrape; what `prometheus_client` registers."""

    artifacts: Artifacts
    params: Params
    environment: Mapping[str, str]

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the installation."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric; `ragloop_source_up` last."""
        up = {}
        for source, read in _SOURCES.items():
            try:
                yield from [*read(self)]
                up[source] = 1.0
            except (RagError, OSError, ValueError, KeyError, TypeError):
                up[source] = 0.0
        yield _gauge("source_up", "1 where the source could be read", "source", up)


def exposition(artifacts: Artifacts, params: Params, environment: Mapping[str, str]) -> str:
    """All metrics in Prometheus' text format."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        raise RagError(
            'prometheus-client is not installed; run: pip install "ragloop[metrics]"'
        ) from None
    registry = CollectorRegistry()
    registry.register(InstallationCollector(artifacts, params, environment))
    return generate_latest(registry).decode()


def _of_ledger(site: InstallationCollector) -> Iterator[Metric]:
    from rag.release import ledger
    from rag.release.history import live_at, parse_time

    rows = ledger.read(site.artifacts.ledger)
    outcomes = Counter(str(row.get("outcome", "?")) for row in rows)
    yield _counter("ledger_rows", "Rows of the ledger by outcome", "outcome", outcomes)
    decided = [row["decision"] for row in rows if isinstance(row.get("decision"), Mapping)]
    outcomes = Counter(str(decision.get("outcome", "?")) for decision in decided)
    yield _counter("decisions", "Decisions of the gate by outcome", "outcome", outcomes)
    for name, about, wanted in (
        ("last_success", "End of the last run that came to a decision", _SUCCESS),
        ("last_error", "End of the last run that the gate could not decide", {"ERROR"}),
        ("last_promotion", "When a run last made its release champion", {"PROMOTE"}),
    ):
        times = [str(row["time"]) for row in rows if row.get("outcome") in wanted and "time" in row]
        if times:
            yield _gauge(f"{name}_timestamp_seconds", about, value=_seconds(parse_time(times[-1])))
    live = live_at([row for row in rows if "time" in row], datetime.now(UTC))
    if live is not None:
        since = _seconds(parse_time(str(live["time"])))
        yield _gauge("champion_since_timestamp_seconds", "When it became champion", value=since)


def _of_mlflow(site: InstallationCollector) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    from rag.release.registry import CHAMPION
    from rag.release.store_facts import read_store

    store = read_store(site.artifacts, site.params)
    statuses = Counter(run.status for run in store.runs)
    yield _gauge("runs", "Runs of this project that MLflow keeps", "status", statuses)
    ended = [run for run in store.runs if run.ended is not None and run.status == "FINISHED"]
    if ended:
        last = max(ended, key=lambda run: run.ended or 0.0)
        seconds = (last.ended or 0.0) - last.started
        yield _gauge("run_duration_seconds", "Of the last finished run", value=seconds)
    yield _gauge("versions", "Registered releases", value=float(len(store.versions)))
    champion = store.aliased(CHAMPION)
    if champion is not None:
        labels = {
            "version": champion.version,
            "index": champion.index or "",
            "run_key": champion.tags.get("run_key", ""),
            "git_commit": champion.tags.get("git_commit", ""),
        }
        info = GaugeMetricFamily(
            "ragloop_champion_info", "The release that is live", labels=list(labels)
        )
        info.add_metric(list(labels.values()), 1.0)
        yield info


def _of_stages(site: InstallationCollector) -> Iterator[Metric]:
    facts = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(site.artifacts.speed.glob("*.json"))
    }
    for field, about in (
        ("seconds", "Training time of the last run"),
        ("samples_per_second", "Training speed of the last run"),
    ):
        values = {stage: float(row[field]) for stage, row in facts.items() if field in row}
        if values:
            yield _gauge(f"training_{field}", about, "stage", values)


def _of_prefect(site: InstallationCollector) -> Iterator[Metric]:
    found = serving(site.artifacts, site.environment)
    is_served = found.state in ("up", "named")
    yield _gauge("serving", "1 while the schedule is served", value=float(is_served))
    if found.api is None:
        return
    now = datetime.now(UTC)
    root = site.artifacts.root.resolve()
    facts = read_prefect(found.api, root, site.environment, now, is_own=found.state == "up")
    planned = [when for run in facts.coming if (when := time_of(run, "expected_start_time"))]
    late = [when for when in planned if (now - when).total_seconds() > _LATE_SECONDS]
    counts = {"late": float(len(late)), "planned": float(len(planned) - len(late))}
    yield _gauge("scheduled_runs", "Runs that wait for their time, or past it", "state", counts)
    coming = [when for when in planned if when not in late]
    if coming:
        yield _gauge(
            "next_run_timestamp_seconds", "The next planned run", value=_seconds(coming[0])
        )
    ended = [run for run in facts.past if run.get("state_type") == "COMPLETED"]
    # A run that found nothing changed says nothing of how long one takes.
    whole = [run for run in ended if run.get("state_name") != "Skipped"]
    for done in [*whole, *(run for run in ended if run not in whole)][:_RUNS_LOOKED_AT]:
        tasks = task_runs(found.api, str(done["id"]), site.environment)
        seconds = {
            str(task["name"]).rpartition("-")[0] or str(task["name"]): float(task["total_run_time"])
            for task in tasks
            if task.get("total_run_time")
        }
        if seconds:
            yield _gauge("step_duration_seconds", "Of the last scheduled run", "step", seconds)
            break  # a run that had no turn has no steps


def _of_watch(site: InstallationCollector) -> Iterator[Metric]:
    """What the tests of the served questions last found; nothing where nobody watches."""
    from prometheus_client.core import GaugeMetricFamily

    path = site.artifacts.state / "watch.json"
    if not path.exists():
        return
    served = json.loads(path.read_text(encoding="utf-8"))["served"]
    drift = GaugeMetricFamily(
        "ragloop_drift", "What a test of served questions last found", labels=["test", "value"]
    )
    for test, evidence in sorted(served.get("evidence", {}).items()):
        for name, value in sorted(evidence.items()):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                drift.add_metric([test, name], float(value))
    yield drift


def _of_disk(site: InstallationCollector) -> Iterator[Metric]:
    usage = shutil.disk_usage(site.artifacts.root)
    yield _gauge("disk_free_bytes", "Free where the project lies", value=float(usage.free))
    yield _gauge("disk_size_bytes", "Size of the disk it lies on", value=float(usage.total))
    state = site.artifacts.state
    sizes = {
        path.name: float(folder_bytes(path) if path.is_dir() else path.stat().st_size)
        for path in sorted(state.glob("*"))
    }
    yield _gauge("state_bytes", "Size of the parts of the state folder", "part", sizes)


_SOURCES: Mapping[str, Callable[[InstallationCollector], Iterator[Any]]] = {
    "ledger": _of_ledger,
    "mlflow": _of_mlflow,
    "stages": _of_stages,
    "prefect": _of_prefect,
    "watch": _of_watch,
    "disk": _of_disk,
}


def _gauge(
    name: str,
    about: str,
    label: str = "",
    values: Mapping[str, float] | None = None,
    *,
    value: float | None = None,
) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    if values is None:
        return GaugeMetricFamily(f"ragloop_{name}", about, value=value)
    family = GaugeMetricFamily(f"ragloop_{name}", about, labels=[label])
    for key, number in sorted(values.items()):
        family.add_metric([key], number)
    return family


def _counter(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"ragloop_{name}", about, labels=[label])
    for key, number in sorted(values.items()):
        family.add_metric([key], number)
    return family


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
