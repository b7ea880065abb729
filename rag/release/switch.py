"""The switch: an alias moves to another version, whole or not at all, and the ledger says why.

    check       the version exists, and the alias points where the decision found it
    intent      where from, where to and the ledger row, on disk before anything moves
    compare     the alias still points there, or nothing is changed
    collection  the alias on the Qdrant server, where there is one; only the champion has it
    alias       the alias in MLflow: the one truth, and the moment of the switch
    commit      the row, on disk
    settle      the version is no orphan; a champion no longer waits as challenger
    close       the intent is gone

Readers resolve the MLflow alias once, and open the bundle and the index that this one version
names, so no moment of a switch shows them a mixed pair. A switch that was killed is finished if the
alias has moved, and taken back if it has not. The caller holds the project's lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params
from rag.release import ledger, registry
from rag.release.intent import Switch, drop_intent, read_intent, write_intent
from rag.release.registry import CHALLENGER, CHAMPION, PENDING
from rag.release.steps import Step, walk

Row = dict[str, Any]
SWITCH_ID = "switch_id"


@dataclass(frozen=True)
class Recovered:
    """A switch that was cut short: finished, with its ledger row, or taken back, without one."""

    switch: Switch
    row: Row | None

    def spoken(self) -> str:
        """One line for people."""
        version, alias = self.switch.version, self.switch.alias
        if self.row is None:
            return f"took back a switch that was cut short: version {version} is not {alias}"
        return f"finished a switch that was cut short: version {version} is {alias}"


def make_champion(
    artifacts: Artifacts,
    params: Params,
    version: str,
    *,
    expected: str | None,
    row: Mapping[str, Any],
) -> Row:
    """Makes a version champion if the champion is still `expected` (None: there is none yet).

    Returns the ledger row. ReleaseError, with nothing changed, when the champion is another one or
    the version does not exist.
    """
    return _take(artifacts, params, Switch(CHAMPION, version, expected, row))


def make_challenger(
    artifacts: Artifacts, params: Params, version: str, *, row: Mapping[str, Any]
) -> Row:
    """Makes a version the one that waits for a decision; returns the ledger row."""
    before = registry.challenger(params)
    switch = Switch(CHALLENGER, version, before.version if before else None, row)
    return _take(artifacts, params, switch)


def steps(artifacts: Artifacts, params: Params, switch: Switch) -> tuple[Step, ...]:
    """The steps of a switch, in order; each may be repeated."""
    return (
        Step("check", lambda: _check(artifacts, params, switch)),
        Step("intent", lambda: write_intent(artifacts, switch)),
        Step("compare", lambda: _compare(artifacts, params, switch)),
        Step("collection", lambda: _point_collection(params, switch.alias, switch.version)),
        Step("alias", lambda: _move_alias(params, switch)),
        *_last_steps(artifacts, params, switch),
    )


def finish(artifacts: Artifacts, params: Params) -> Recovered | None:
    """Finishes a switch that was killed, or takes it back; None where there was none."""
    switch = read_intent(artifacts)
    if switch is None:
        return None
    found = registry.aliased(params, switch.alias)
    moved = found is not None and found.version == switch.version
    _point_collection(params, switch.alias, found.version if found else None)
    if moved or _row_of(artifacts, switch) is not None:
        walk(_last_steps(artifacts, params, switch))
    else:
        drop_intent(artifacts)
    return Recovered(switch, _row_of(artifacts, switch))


def collection_alias(params: Params) -> str:
    """The alias on a Qdrant server that follows the champion."""
    return f"{params.release.name}-{CHAMPION}"


def _take(artifacts: Artifacts, params: Params, switch: Switch) -> Row:
    walk(steps(artifacts, params, switch))
    row = _row_of(artifacts, switch)
    assert row is not None
    return row


def _last_steps(artifacts: Artifacts, params: Params, switch: Switch) -> tuple[Step, ...]:
    return (
        Step("commit", lambda: _commit(artifacts, switch)),
        Step("settle", lambda: _settle(params, switch)),
        Step("close", lambda: drop_intent(artifacts)),
    )


def _check(artifacts: Artifacts, params: Params, switch: Switch) -> None:
    """So that no intent says what was wrong from the start."""
    registry.get_release(params, switch.version)
    _compare(artifacts, params, switch)


def _compare(artifacts: Artifacts, params: Params, switch: Switch) -> None:
    current = registry.aliased(params, switch.alias)
    found = current.version if current else None
    if found != switch.before:
        drop_intent(artifacts)
        raise ReleaseError(
            f"{switch.alias} changed: it is {_spoken(found)}, the comparison was with "
            f"{_spoken(switch.before)}; run `ragloop run` to compare again"
        )


def _point_collection(params: Params, alias: str, version: str | None) -> None:
    if alias != CHAMPION or params.index.kind != "server":
        return
    from rag.retrieval.index_alias import point_alias

    index = registry.get_release(params, version).index if version else None
    point_alias(params.index, collection_alias(params), index)


def _move_alias(params: Params, switch: Switch) -> None:
    client = registry.mlflow_client()
    client.set_registered_model_alias(params.release.name, switch.alias, switch.version)
    after = registry.aliased(params, switch.alias)
    if after is None or after.version != switch.version:
        raise ReleaseError(
            f"{switch.alias} changed while it moved to version {switch.version}: it is "
            f"{_spoken(after.version if after else None)}; look at `ragloop releases`"
        )


def _commit(artifacts: Artifacts, switch: Switch) -> None:
    if _row_of(artifacts, switch) is None:
        ledger.append(artifacts.ledger, {**switch.row, SWITCH_ID: switch.switch_id})


def _settle(params: Params, switch: Switch) -> None:
    """Tolerates a version that somebody has removed meanwhile: there is nothing to settle then."""
    for release in registry.all_releases(params):
        if release.version == switch.version and PENDING in release.tags:
            client = registry.mlflow_client()
            client.delete_model_version_tag(release.name, release.version, PENDING)
    waiting = registry.challenger(params) if switch.alias == CHAMPION else None
    if waiting and waiting.version == switch.version:
        registry.mlflow_client().delete_registered_model_alias(waiting.name, CHALLENGER)


def _row_of(artifacts: Artifacts, switch: Switch) -> Row | None:
    rows = reversed(ledger.read(artifacts.ledger))
    return next((row for row in rows if row.get(SWITCH_ID) == switch.switch_id), None)


def _spoken(version: str | None) -> str:
    return f"version {version}" if version else "none"
