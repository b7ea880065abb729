"""Keeping the registry whole and small: what every start puts right, and what a prune removes.

The caller holds the project's lock, so whatever looks unfinished here was left by a dead process.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rag.artifacts import Artifacts
from rag.params import Params
from rag.release import ledger, registry, switch
from rag.release.inventory import own_runs, read_inventory
from rag.release.removal import removal_steps
from rag.release.retention import PRUNE, Removal, orphans, plan
from rag.release.steps import Step, walk

#: The outcome of a row about a champion that was made outside ragloop.
ADOPTED = "ADOPTED"


def reconcile(artifacts: Artifacts, params: Params) -> list[str]:
    """Puts right what a crash left, and says what: nothing where all is in order."""
    said = settle(artifacts, params)
    found = orphans(read_inventory(artifacts, params), ledger.read(artifacts.ledger))
    walk(removal_steps(artifacts, params, found))
    return said + [f"removed {item.kind} {item.name}: {item.reason}" for item in found]


def settle(artifacts: Artifacts, params: Params) -> list[str]:
    """The part that removes nothing: half switches, dead runs, a champion made by other hands."""
    recovered = switch.finish(artifacts, params)
    said = [recovered.spoken()] if recovered else []
    for run in own_runs(artifacts, params):
        if run.running:
            registry.mlflow_client().set_terminated(run.run_id, "KILLED")
            said.append(f"closed run {run.run_id}: its process ended without a word")
    adopted = _adopt(artifacts, params)
    return said + ([adopted] if adopted else [])


def plan_prune(artifacts: Artifacts, params: Params) -> list[Removal]:
    """What a prune would remove now, in order."""
    rows = ledger.read(artifacts.ledger)
    return plan(read_inventory(artifacts, params), rows, params.release)


def prune_steps(artifacts: Artifacts, params: Params, removals: list[Removal]) -> tuple[Step, ...]:
    """First the ledger's row, which says what is about to go; then each removal."""
    if not removals:
        return ()
    announced = Step("announce", lambda: _announce(artifacts, params, removals))
    return (announced, *removal_steps(artifacts, params, removals))


def prune(artifacts: Artifacts, params: Params) -> list[Removal]:
    """Removes what `plan_prune` lists, and returns it."""
    removals = plan_prune(artifacts, params)
    walk(prune_steps(artifacts, params, removals))
    return removals


def _announce(artifacts: Artifacts, params: Params, removals: list[Removal]) -> None:
    live = registry.champion(params)
    row = {
        "time": _now(),
        "outcome": PRUNE,
        "version": None,
        "champion": live.version if live else None,
        "removed": [item.to_json() for item in removals],
    }
    ledger.append(artifacts.ledger, row)


def _adopt(artifacts: Artifacts, params: Params) -> str | None:
    """The alias is the truth: a champion that the ledger does not know of gets a row."""
    live = registry.champion(params)
    rows = ledger.read(artifacts.ledger)
    before = next((row["champion"] for row in reversed(rows) if row.get("champion")), None)
    if live is None or live.version == before:
        return None
    row = {
        "time": _now(),
        "outcome": ADOPTED,
        "key": live.tags.get("run_key", ""),
        "run_id": live.run_id,
        "version": live.version,
        "champion_before": before,
        "champion": live.version,
        "tags": dict(live.tags),
        "reason": "the alias was moved outside ragloop",
    }
    ledger.append(artifacts.ledger, row)
    return f"version {live.version} was made champion outside ragloop: the ledger has a row now"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
