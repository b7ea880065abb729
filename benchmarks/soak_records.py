"""What a soak has seen: plain records, and how they are read from the stores of a project."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rag.monitoring import bounded_log

if TYPE_CHECKING:
    from benchmarks.soak_system import System

#: What a run of the flow ends as when it has come to a decision.
DECIDED = ("Promote", "Reject", "Inconclusive", "Pending", "Error")

_RUNS = """
select replace(run.id, '-', ''), run.name, run.auto_scheduled, run.expected_start_time,
       run.start_time, run.end_time, run.state_type, run.state_name, state.message,
       deployment.description
from flow_run run
left join flow_run_state state on state.id = run.state_id
left join deployment on deployment.id = run.deployment_id
order by run.expected_start_time
"""


@dataclass(frozen=True)
class Run:
    """A flow run as Prefect has it at the end; times are seconds since the epoch.

    `is_tick` says that the schedule of `retrain` made it.
    """

    run_id: str
    name: str
    is_tick: bool
    due: float
    ended: float | None
    state_type: str
    state_name: str
    message: str

    @property
    def is_retraining(self) -> bool:
        """Whether it came to a decision, on a training of its own or of the run it took up.

        The type too: Prefect has a state of its own that is called Pending.
        """
        return self.state_type == "COMPLETED" and self.state_name in DECIDED


@dataclass(frozen=True)
class Sample:
    """One look at the live system.

    `seconds` is of the monotonic clock, `clock` what the project's programs have for the time.
    `champions` is what MLflow's alias points to; None where the store could not be read. `running`
    are runs that a store takes for running, `alive` those of them that have a process. `scheduler`
    is the pid of the schedule's program.
    """

    seconds: float
    clock: float
    champions: Sequence[str] | None = None
    running: frozenset[str] | None = None
    alive: frozenset[str] = frozenset()
    scheduler: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def used(self) -> int:
        return sum(self.sizes.values())


@dataclass
class Fault:
    """One fault: when it began and was over (monotonic), whom it hit, and what became of that.

    `run_id` is the flow run that was at work, `recovered` the seconds from its end until another
    run ended as it should. `skipped` says why it was not made.
    """

    kind: str
    began: float
    ended: float = 0.0
    target: str = ""
    run_id: str = ""
    recovered: float | None = None
    skipped: str = ""


@dataclass(frozen=True)
class Records:
    """Everything that the invariants are judged by."""

    runs: Sequence[Run]
    notices: Sequence[Mapping[str, Any]]
    ledger: Sequence[Mapping[str, Any]]
    samples: Sequence[Sample]
    faults: Sequence[Fault]
    interval_seconds: int
    problems: Sequence[str] = ()


def read_runs(system: System, *, until: float) -> list[Run]:
    """Every flow run that was due by then, in the project's clock."""
    runs = []
    for row in system.query(system.prefect_store, _RUNS):
        run_id, name, scheduled, due, started, ended, kind, state, message, served = row
        due_at = _seconds(due) or 0.0
        if due_at > until and not started:
            continue
        is_retrain = str(served or "").startswith("retrain of ")
        runs.append(
            Run(
                *(run_id, name, bool(scheduled) and is_retrain, due_at, _seconds(ended)),
                *(kind, state, message or ""),
            )
        )
    return runs


def read_notices(system: System) -> list[dict[str, Any]]:
    """What people were told; ids of runs are written as in `Run`."""
    rows = bounded_log.read(system.artifacts.notices)
    return [
        {**row, "runs": [str(run).replace("-", "") for run in row.get("runs", ())]} for row in rows
    ]


def store_problems(system: System) -> list[str]:
    """What is wrong with the stores themselves once everything has stopped."""
    from rag.release import ledger

    problems = []
    for store in (system.prefect_store, system.mlflow_store):
        try:
            found = [row[0] for row in system.query(store, "pragma integrity_check")]
        except sqlite3.Error as error:
            found = [str(error)]
        if found != ["ok"]:
            problems.append(f"{store.name}: {'; '.join(map(str, found[:3]))}")
    try:
        rows = ledger.read(system.artifacts.ledger)
    except Exception as error:  # noqa: BLE001 - whatever it is, the ledger cannot be read
        return [*problems, f"ledger: {error}"]
    live = next((row["champion"] for row in reversed(rows) if row.get("champion")), None)
    champion = live_champion(system)
    if champion != ([str(live)] if live else []):
        problems.append(f"MLflow's champion is {champion}, the ledger's is {live}")
    return problems


def live_champion(system: System) -> list[str]:
    """The versions that the alias `champion` points to and that are there, by MLflow's store."""
    query = (
        "select alias.version from registered_model_aliases alias join model_versions version "
        "on version.name = alias.name and version.version = alias.version "
        "and version.current_stage != 'Deleted_Internal' where alias.alias = 'champion'"
    )
    return [str(row[0]) for row in system.query(system.mlflow_store, query)]


def running_runs(system: System) -> dict[str, tuple[str, int | None]]:
    """`{run: (store, pid of who works on it)}` of what Prefect and MLflow take for running."""
    found: dict[str, tuple[str, int | None]] = {}
    prefect = (
        "select replace(id, '-', ''), labels from flow_run "
        "where state_type in ('RUNNING', 'PENDING', 'CANCELLING')"
    )
    for run_id, labels in system.query(system.prefect_store, prefect):
        pid = json.loads(labels or "{}").get("ragloop.pid")
        found[run_id] = ("prefect", int(pid) if pid else None)
    mlflow = (
        "select run.run_uuid, tag.value from runs run left join tags tag "
        "on tag.run_uuid = run.run_uuid and tag.key = 'ragloop.pid' where run.status = 'RUNNING'"
    )
    for run_id, pid in system.query(system.mlflow_store, mlflow):
        found[run_id] = ("mlflow", int(pid) if pid else None)
    return found


def _seconds(text: str | None) -> float | None:
    """SQLite has times as text, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() if text else None
