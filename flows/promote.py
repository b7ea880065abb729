"""From a decision to a release: register, switch, and write it down.

Only the outcome PROMOTE moves the alias `champion`, and in mode `manual` a person does that later;
whatever fails before leaves it where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows.key import SAME
from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params

if TYPE_CHECKING:
    from rag.release.gate import Decision
    from rag.release.registry import ReleaseVersion


def conclude(
    artifacts: Artifacts,
    params: Params,
    decision: Decision,
    *,
    key: str,
    run_id: str,
    tags: Mapping[str, str],
    champion: ReleaseVersion | None,
    record: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Registers the release, points the alias that the decision allows, and returns the ledger row.

    `record` is what the ledger says beside the decision. ReleaseError, after the ledger has its
    row, where the gate could not decide.
    """
    from rag.release import registry, switch
    from rag.release.gate import Outcome
    from rag.release.history import DRY_RUN, ledger_outcome
    from rag.release.served import check_release

    # This may be the second attempt of a task whose first one lost its connection.
    recovered = switch.finish(artifacts, params)
    if recovered and recovered.row and recovered.row["run_id"] == run_id:
        return recovered.row
    before = champion.version if champion else None
    row: dict[str, Any] = {
        "time": _now(),
        "outcome": ledger_outcome(decision.outcome, params.gate.mode),
        "key": key,
        "run_id": run_id,
        "tags": dict(tags),
        "decision": decision.to_json(),
        **(record or {}),
        "version": None,
        "champion": before,
    }
    if decision.outcome is Outcome.ERROR:
        _write_down(artifacts, row)
        raise ReleaseError(f"the gate cannot decide: {'; '.join(decision.reasons)}")
    if row["outcome"] == DRY_RUN:
        return _write_down(artifacts, row)
    version = registry.register(artifacts, params, run_id=run_id, tags=tags, decision=decision)
    row |= {"version": version, "champion_before": before}
    if row["outcome"] != Outcome.PROMOTE:
        return switch.make_challenger(artifacts, params, version, row=row)
    check_release(artifacts, params, registry.get_release(params, version))
    row["champion"] = version
    return switch.make_champion(artifacts, params, version, expected=before, row=row)


def confirm_champion(artifacts: Artifacts, key: str, champion: ReleaseVersion) -> None:
    """Notes that a run gave the champion again, so that the next one has nothing to do."""
    row = {
        "time": _now(),
        "outcome": SAME,
        "key": key,
        "run_id": champion.run_id,
        "version": champion.version,
        "champion": champion.version,
        "tags": dict(champion.tags),
    }
    _write_down(artifacts, row)


def _write_down(artifacts: Artifacts, row: Mapping[str, Any]) -> dict[str, Any]:
    from rag.release import ledger

    return ledger.append(artifacts.ledger, row)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
