"""What is live: alias, version and files agree, and the ledger tells all that happened."""

from __future__ import annotations

import os
from pathlib import Path

from flows.doctor_checks.finding import Finding, Site, WaitsFor, fail, ok, warn, worst

_MEGABYTE = 1_000_000
#: Files are hashed up to this; of the rest it is enough that they are there.
_HASHED_BYTES = 256 * _MEGABYTE
_NONE_YET = "nothing is released yet"


def look_at_champion(site: Site) -> Finding:
    """The alias points at a version that exists, and the ledger says the same."""
    from rag.release.registry import CHAMPION, PENDING

    store = site.store
    champion = store.aliased(CHAMPION)
    champions = [str(row["champion"]) for row in reversed(site.ledger) if row.get("champion")]
    said = champions[0] if champions else None
    there = next((version for version in champions if version in store.versions), None)
    restore = "ragloop run"
    if there is not None:
        restore = f"ragloop promote {there} --override --why 'the alias was lost'"
    problems = []
    for alias, version in sorted(store.aliases.items()):
        if version not in store.versions:
            lost = f"the alias {alias} points at version {version}, which is gone"
            is_live = alias == CHAMPION
            problems.append(fail(lost, restore) if is_live else warn(lost, "ragloop run"))
    if CHAMPION not in store.aliases:
        if said is None:
            return worst(problems, _NONE_YET)
        lost = f"no version is champion, the ledger says version {said}"
        problems.append(fail(lost, restore))
    if champion is not None and champion.version != said:
        told = f"version {said}" if said else "none"
        problems.append(
            fail(
                f"version {champion.version} is champion, the ledger says {told}: the alias was "
                "moved outside ragloop",
                f"ragloop rollback {said}" if said else "ragloop run",
            )
        )
    if champion is not None and PENDING in champion.tags:
        remedy = "ragloop run"
        problems.append(warn(f"version {champion.version} is marked as half registered", remedy))
    version = champion.version if champion else "?"
    return worst(problems, f"version {version}, of {len(store.versions)} registered")


def look_at_bundle(site: Site) -> Finding:
    """The files that the champion answers from are all there, unaltered."""
    if site.served is None:
        return ok(_NONE_YET)
    release, bundle = site.served
    from rag.release.bundle import MANIFEST, looks_pickled
    from rag.release.registry import BUNDLE
    from rag.release.served import manifest_of
    from rag.weights import file_sha256

    way_back = _way_back(site, release.version)
    if not (bundle / MANIFEST).is_file():
        return fail(f"the files of version {release.version} are gone: {bundle}", way_back)
    pinned = release.tags.get(BUNDLE)
    if pinned is not None and file_sha256(bundle / MANIFEST) != pinned:
        return fail(f"{bundle / MANIFEST} is not that of version {release.version}", way_back)
    problems, hashed = [], 0
    files = {bundle / name: sha256 for name, sha256 in manifest_of(bundle)["files"].items()}
    for path, sha256 in sorted(files.items(), key=lambda item: _size(item[0])):
        name = path.relative_to(bundle)
        if not path.is_file():
            problems.append(fail(f"{name} of version {release.version} is missing", way_back))
            continue
        if looks_pickled(path):
            problems.append(fail(f"{name} of version {release.version} is a pickle", way_back))
        if hashed + _size(path) <= _HASHED_BYTES:
            hashed += _size(path)
            if file_sha256(path) != sha256:
                problems.append(fail(f"{name} of version {release.version} was altered", way_back))
    return worst(problems, f"{len(files)} files, {hashed / _MEGABYTE:.1f} MB compared")


def _way_back(site: Site, version: str) -> str:
    """To an earlier champion where there is one, else forward to a new one."""
    try:
        earlier = {str(row["champion"]) for row in site.ledger if row.get("champion")}
    except WaitsFor:
        return "ragloop rollback"
    others = (earlier & set(site.store.versions)) - {version}
    return "ragloop rollback" if others else "ragloop run --force"


def look_at_ledger(site: Site) -> Finding:
    """The chain of decisions is whole, to the last row that was written."""
    from rag.errors import ReleaseError
    from rag.release import ledger

    path = site.artifacts.ledger
    try:
        rows = ledger.read(path)
    except ReleaseError as error:
        return fail(
            str(error), f"restore {path} and {path.with_suffix('.head').name} from a backup"
        )
    problems = []
    if path.exists() and not os.access(path, os.W_OK):
        problems.append(fail(f"{path} cannot be written", f"chmod u+w {path}"))
    if site.valid_params is not None:
        try:
            named = site.store.ledger_head
        except WaitsFor:
            named = None
        if named is not None:
            try:
                ledger.check_contains(path, rows, named, "MLflow")
            except ReleaseError as error:
                problems.append(fail(str(error), f"restore {path} from a backup"))
    return worst(problems, f"{len(rows)} rows, the chain is whole")


def look_at_switch(site: Site) -> Finding:
    """No switch of the champion was cut short."""
    from flows import lock
    from rag.errors import ReleaseError
    from rag.release.intent import read_intent

    path = Path(site.artifacts.state, "switch.json")
    try:
        intent = read_intent(site.artifacts)
    except ReleaseError as error:
        return fail(str(error), f"ragloop releases, then: rm {path}")
    if intent is None:
        return ok("no switch is half done")
    holder = lock.holder(site.artifacts.lock)
    if holder is not None and holder.is_here and holder.is_alive:
        return ok(f"version {intent.version} is being made {intent.alias} by {holder.spoken()}")
    return fail(
        f"the switch to version {intent.version} as {intent.alias} was cut short",
        "ragloop run  # every run first finishes it or takes it back",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
