"""What may go: everything that neither an alias nor the newest rows of the ledger reach.

    kept     champion, challenger, the last `keep` champions, the last `keep_challengers` others
    reached  of each of these: its version, its run with all models, its index, its bundle

What is removed goes in this order, from what refers to what is referred to: versions, models, runs,
collections, indexes, bundles, scratch. So a removal that is cut short leaves files that nothing
reaches, and never a version without its files; the row that the ledger got before says what is left
to remove. These functions are pure: inventory and ledger in, removals out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from rag.params import ReleaseParams
from rag.release.inventory import Inventory, Version

Kind = Literal["version", "model", "run", "collection", "index", "bundle", "scratch", "result"]
PRUNE = "PRUNE"
_UNREACHED = "no release that stays needs it"
_HALF = "left by a process that was killed"


@dataclass(frozen=True)
class Removal:
    """One thing that goes, and why; `bytes` is None where the store does not tell."""

    kind: Kind
    name: str
    reason: str
    bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def kept_versions(
    rows: Sequence[Mapping[str, Any]], aliases: Mapping[str, str], limits: ReleaseParams
) -> dict[str, str]:
    """Version to why it stays; versions need not exist any more."""
    kept = {version: alias for alias, version in sorted(aliases.items())}
    newest = list(reversed(rows))
    champions = _distinct(row.get("champion") for row in newest)
    promoted = {row.get("champion") for row in rows}
    others = _distinct(row.get("version") for row in newest if row.get("version") not in promoted)
    for version in champions[: limits.keep]:
        kept.setdefault(version, "one of the last champions")
    for version in others[: limits.keep_challengers]:
        kept.setdefault(version, "one of the last challengers")
    return kept


def plan(
    inventory: Inventory, rows: Sequence[Mapping[str, Any]], limits: ReleaseParams
) -> list[Removal]:
    """What a prune removes, in order.

    A version that the ledger does not know stays, unless it was left half registered.
    """
    kept = kept_versions(rows, inventory.aliases, limits)
    known = _known(rows)
    half = _half_registered(inventory, known)
    gone = {
        item: _HALF if item in half else _left_behind(item, rows, limits)
        for item in inventory.versions
        if item in half or (item.version in known and item.version not in kept)
    }
    return _sweep(inventory, gone, _cut_short(rows))


def orphans(inventory: Inventory, rows: Sequence[Mapping[str, Any]]) -> list[Removal]:
    """What killed processes left: half-made things, and the rest of a prune that was cut short."""
    planned = _cut_short(rows)
    aliased = set(inventory.aliases.values())
    gone = dict.fromkeys(_half_registered(inventory, _known(rows)), _HALF)
    for item in inventory.versions:
        reason = planned.get(("version", item.version))
        if reason is not None and item.version not in aliased:
            gone.setdefault(item, reason)
    swept = _sweep(inventory, gone, planned)
    return [item for item in swept if item.reason == _HALF or (item.kind, item.name) in planned]


def _sweep(
    inventory: Inventory, gone: Mapping[Version, str], planned: Mapping[tuple[str, str], str]
) -> list[Removal]:
    """Everything that the versions that stay do not reach.

    `planned` are things that an earlier prune was about to remove, and why: they go too, where
    nothing that stays reaches them.
    """
    stay = [item for item in inventory.versions if item not in gone]
    runs = _runs_that_go(inventory, stay, gone, planned)
    models = {item.model_id for item in stay}
    indexes = set(inventory.working).union(*(item.indexes for item in stay))
    # What a run that is at work has published is not named by a version yet.
    indexes |= {run.index for run in inventory.runs if run.running and run.index}
    found = [Removal("version", item.version, reason) for item, reason in gone.items()]
    for model in inventory.models:
        is_half = not model.whole or (model.is_release and model.model_id not in models)
        reason = runs.get(model.run_id, _HALF if is_half else None)
        if reason is not None and model.model_id not in models:
            found.append(Removal("model", model.model_id, reason, model.bytes))
    for run in inventory.runs:
        if run.run_id in runs:
            found.append(Removal("run", run.run_id, runs[run.run_id], run.bytes))
    for name in sorted(inventory.collections - indexes):
        found.append(Removal("collection", name, _UNREACHED))
    for kind, sizes, reached in (
        ("index", inventory.indexes, indexes),
        ("bundle", inventory.bundles, models),
    ):
        for name, size in sizes.items():
            if name not in reached:
                found.append(Removal(cast(Kind, kind), name, _UNREACHED, size))
    found += [Removal("scratch", name, _HALF, size) for name, size in inventory.scratch.items()]
    return found


def _runs_that_go(
    inventory: Inventory,
    stay: Sequence[Version],
    gone: Mapping[Version, str],
    planned: Mapping[tuple[str, str], str],
) -> dict[str, str]:
    """Run to why it goes: it made a version that goes, or none and is older than all that stay.

    The run of a version that was left half registered stays: it is gone on with.
    """
    kept = {item.run_id for item in stay}
    made = {item.run_id: item for item in gone}
    started = [run.started for run in inventory.runs if run.run_id in kept]
    reasons = {}
    for run in inventory.runs:
        if run.running or run.run_id in kept:
            continue
        item = made.get(run.run_id)
        if item is not None:
            if gone[item] != _HALF:
                reasons[run.run_id] = f"made version {item.version}"
        elif ("run", run.run_id) in planned:
            reasons[run.run_id] = planned["run", run.run_id]
        elif started and run.started < min(started):
            reasons[run.run_id] = "without a release, and older than every release that stays"
    return reasons


def _half_registered(inventory: Inventory, known: Set[Any]) -> list[Version]:
    aliased = set(inventory.aliases.values())
    return [
        item
        for item in inventory.versions
        if item.pending and item.version not in known and item.version not in aliased
    ]


def _cut_short(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """What the newest row announces to remove; of a prune that came to its end nothing is left."""
    if not rows or rows[-1].get("outcome") != PRUNE:
        return {}
    return {(item["kind"], item["name"]): item["reason"] for item in rows[-1]["removed"]}


def _known(rows: Sequence[Mapping[str, Any]]) -> set[Any]:
    return {row.get("version") for row in rows} | {row.get("champion") for row in rows}


def _left_behind(item: Version, rows: Sequence[Mapping[str, Any]], limits: ReleaseParams) -> str:
    if item.version in {row.get("champion") for row in rows}:
        return f"none of the last {limits.keep} champions"
    return f"none of the last {limits.keep_challengers} challengers"


def _distinct(versions: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(version) for version in versions if version))
