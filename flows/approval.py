"""A person's word about a release: `ragloop promote V`, with who and why in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flows import lock, reconcile, stores, terminal
from rag.artifacts import Artifacts
from rag.errors import InputError, ReleaseError
from rag.params import Params


def promote(
    artifacts: Artifacts,
    params: Params,
    version: str,
    *,
    actor: str,
    reason: str,
    override: bool = False,
    decline: bool = False,
) -> dict[str, Any]:
    """Makes a version champion that the gate has passed, or declines it; returns the ledger's row.

    ReleaseError, with nothing changed, where the gate has not passed it or the champion is no
    longer the one that it was compared with; `override` promotes it all the same.
    """
    if not reason.strip():
        raise InputError("--why is empty: the ledger keeps the reason of every decision")
    from rag import tracking
    from rag.release import ledger, registry, switch
    from rag.release.history import DECLINED, latest_decision
    from rag.release.mirror import mirror_row
    from rag.release.served import check_release

    with lock.hold(artifacts.lock, "ragloop promote"):
        stores.initialise(artifacts, params)
        tracking.configure(artifacts, params)
        reconcile.reconcile(artifacts, params)
        release = registry.get_release(params, version)
        champion = registry.champion(params)
        before = champion.version if champion else None
        if before == version:
            raise ReleaseError(f"version {version} is the champion already")
        decided = latest_decision(ledger.read(artifacts.ledger), version)
        row: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "outcome": DECLINED if decline else "PROMOTE",
            "key": release.tags.get("run_key", ""),
            "run_id": release.run_id,
            "version": version,
            "champion_before": before,
            "champion": before if decline else version,
            "tags": dict(release.tags),
            "actor": actor,
            "reason": reason,
            "decides": decided["sequence"] if decided else None,
            "override": override,
        }
        if decline:
            done = ledger.append(artifacts.ledger, row)
        else:
            if not override:
                _check_passed(version, decided, before)
            check_release(artifacts, params, release)
            done = switch.make_champion(artifacts, params, version, expected=before, row=row)
        mirror_row(params, done)
    return done


def print_promoted(row: Mapping[str, Any]) -> None:
    """What is live now, and how to take it back."""
    console = terminal.result_console()
    if row["champion"] != row["version"]:
        console.print(f"version {row['version']} is declined; the champion stays {row['champion']}")
        return
    console.print(f"version [bold]{row['version']}[/] is the champion now")
    if row["champion_before"]:
        console.print("[dim]to take it back: ragloop rollback[/]")


def _check_passed(version: str, decided: Mapping[str, Any] | None, champion: str | None) -> None:
    """ReleaseError unless the gate has passed the version against the champion of now."""
    way_out = f"to promote it all the same: ragloop promote {version} --why REASON --override"
    if decided is None:
        raise ReleaseError(f"the ledger holds no decision about version {version}; {way_out}")
    decision = decided["decision"]
    if decision["outcome"] != "PROMOTE":
        reason = decision["reasons"][0] if decision["reasons"] else "no reason was given"
        raise ReleaseError(
            f"the gate did not pass version {version}: {decision['outcome']}: {reason}; {way_out}"
        )
    if decided.get("champion") == version:
        raise ReleaseError(
            f"version {version} was champion before; to go back to it: ragloop rollback {version}"
        )
    compared = decided.get("champion_before")
    if compared != champion:
        raise ReleaseError(
            f"version {version} was compared with {_spoken(compared)}, the champion is "
            f"{_spoken(champion)}; to compare again: ragloop run --force; {way_out}"
        )


def _spoken(version: str | None) -> str:
    return f"version {version}" if version else "the baselines"
