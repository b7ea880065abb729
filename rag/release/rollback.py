"""Rollback: the same switch, back to a version that was champion before; nothing is evaluated.

Without a version it goes to the champion before the last switch, so a rollback of a rollback takes
the first one back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params
from rag.release import ledger, registry
from rag.release.served import check_release
from rag.release.switch import Row, make_champion

ROLLBACK = "ROLLBACK"


def previous_champion(rows: Sequence[Mapping[str, Any]], current: str) -> str | None:
    """The champion before `current`, as the ledger has it; None where there was none."""
    champions = [row["champion"] for row in rows if row.get("champion")]
    return next((str(version) for version in reversed(champions) if version != current), None)


def target_of(artifacts: Artifacts, params: Params, version: str | None) -> str:
    """The version that a rollback goes to; ReleaseError where there is none, or it is no rollback.

    `version` chooses another one than the champion before the last switch.
    """
    current = registry.champion(params)
    if current is None:
        raise ReleaseError(f"{params.release.name} has no champion: there is nothing to roll back")
    rows = ledger.read(artifacts.ledger)
    target = version or previous_champion(rows, current.version)
    if target is None:
        raise ReleaseError(f"no version was champion before version {current.version}")
    if target == current.version:
        raise ReleaseError(f"version {target} is the champion already")
    registry.get_release(params, target)
    if target not in {row.get("champion") for row in rows}:
        raise ReleaseError(
            f"version {target} was never champion, so this is no rollback; "
            f"to make it champion, run: ragloop promote {target}"
        )
    return target


def roll_back(
    artifacts: Artifacts,
    params: Params,
    version: str | None,
    *,
    actor: str,
    reason: str,
) -> Row:
    """Makes an earlier champion the champion again and returns the ledger row.

    The caller holds the lock. ReleaseError, with nothing changed, where there is nowhere to go back
    to, the version was never champion, or it, its files or its index are gone.
    """
    target = target_of(artifacts, params, version)
    release = registry.get_release(params, target)
    check_release(artifacts, params, release)
    current = registry.champion(params)
    before = current.version if current else None
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "outcome": ROLLBACK,
        "key": release.tags.get("run_key", ""),
        "run_id": release.run_id,
        "version": target,
        "champion_before": before,
        "champion": target,
        "tags": dict(release.tags),
        "actor": actor,
        "reason": reason,
    }
    return make_champion(artifacts, params, target, expected=before, row=row)
