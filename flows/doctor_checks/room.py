"""What takes up room for nothing: half-made folders, indexes of no release, endless logs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from flows import lock
from flows.doctor_checks.finding import Finding, Site, WaitsFor, ok, warn, worst
from rag.artifacts import folder_bytes

_MEGABYTE = 1_000_000
_LARGE_BYTES = 1_000 * _MEGABYTE
#: In the state folder: what nothing but people and their own limits make smaller.
_GROWING = ("ledger.jsonl", "notices.jsonl", "feedback.jsonl", "queries", "logs")
_PRUNE = "ragloop prune"


def look_at_leftovers(site: Site) -> Finding:
    """No folder of a killed process, and no index that belongs to no release."""
    from rag.release.packaging import SCRATCH
    from rag.retrieval.index_removal import local_indexes

    holder = lock.holder(site.artifacts.lock)
    if holder is not None and (not holder.is_here or holder.is_alive):
        return ok(f"{holder.spoken()} is at work: not looked at")
    state, indexes = site.artifacts.state, site.artifacts.index_folder
    problems = [
        warn(f"{path.relative_to(state)} was left by a process that was killed", _PRUNE)
        for path in sorted([*state.glob(f"{SCRATCH}*"), *indexes.glob("*.*")])
        if path.is_dir()
    ]
    found = local_indexes(indexes)
    reached = _reached(site)
    problems += [
        warn(f"index {name} ({size / _MEGABYTE:.1f} MB) belongs to no release", _PRUNE)
        for name, size in found.items()
        if name not in reached
    ]
    return worst(problems, f"{len(found)} indexes, each of a release or of the last run")


def look_at_growth(site: Site) -> Finding:
    """Logs and records are small, and old releases have been removed."""
    state = site.artifacts.state
    problems = []
    for name in _GROWING:
        size = _bytes(state / name)
        if size > _LARGE_BYTES:
            remedy = f"keep a copy of {state / name} elsewhere, then shorten it"
            problems.append(warn(f"{name} takes {size / _MEGABYTE:,.0f} MB", remedy))
    limits = site.params.release
    try:
        store = site.store
    except WaitsFor:
        return worst(problems, "logs and records are small")
    allowed = limits.keep + limits.keep_challengers + len(store.aliases)
    if len(store.versions) > allowed:
        problems.append(
            warn(f"{len(store.versions)} versions are kept, {allowed} at most are needed", _PRUNE)
        )
    size = folder_bytes(state)
    return worst(problems, f"{size / _MEGABYTE:,.1f} MB, {len(store.versions)} versions")


def _reached(site: Site) -> set[str]:
    from rag.errors import IndexMismatchError
    from rag.release.served import names_of_bundle
    from rag.retrieval.embeddings import read_facts
    from rag.retrieval.index import index_name

    names = set()
    for release in site.store.versions.values():
        names |= {release.index} if release.index else set()
        bundle = site.store.bundle_of(site.artifacts, release)
        if bundle is not None:
            names |= names_of_bundle(site.artifacts, bundle)
    with contextlib.suppress(IndexMismatchError):  # nothing is embedded yet
        facts = read_facts(site.artifacts.embeddings)
        names |= {
            index_name(own, facts) for own in (site.params.index, site.params.index.in_process())
        }
    return names


def _bytes(path: Path) -> int:
    if path.is_dir():
        return folder_bytes(path)
    return path.stat().st_size if path.exists() else 0
