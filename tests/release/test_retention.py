"""What retention lets go: a property over random histories, judged by a rule of this test's own."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rag.params import ReleaseParams
from rag.release.inventory import Inventory, Model, Run, Version
from rag.release.retention import PRUNE, Removal, kept_versions, orphans, plan

Rows = list[dict[str, Any]]


@st.composite
def histories(draw: st.DrawFn) -> tuple[Inventory, Rows, ReleaseParams]:
    """Promotions, rejections and rollbacks; every third index is shared with the version before."""
    rows: Rows = []
    versions: list[Version] = []
    live: str | None = None
    for number in range(1, draw(st.integers(1, 9)) + 1):
        version = str(number)
        index = f"{number - number % 3:016x}"
        item = Version(version, f"run{number}", f"m-{number}", indexes=frozenset({index}))
        versions.append(item)
        if draw(st.booleans()):
            rows.append({"outcome": "PROMOTE", "version": version, "champion": version})
            live = version
        else:
            rows.append({"outcome": "REJECT", "version": version, "champion": live})
        past = sorted({row["champion"] for row in rows if row["champion"]} - {live})
        if past and draw(st.booleans()):
            live = draw(st.sampled_from(past))
            rows.append({"outcome": "ROLLBACK", "version": live, "champion": live})
    rejected = [row["version"] for row in rows if row["outcome"] == "REJECT"]
    aliases = {"champion": live} if live else {}
    if rejected and draw(st.booleans()):
        aliases["challenger"] = rejected[-1]
    runs = [Run(item.run_id, started=10 * int(item.version)) for item in versions]
    runs += [Run(f"failed{at}", started=at) for at in draw(st.sets(st.integers(0, 95), max_size=3))]
    inventory = Inventory(
        aliases={alias: str(version) for alias, version in aliases.items()},
        versions=tuple(versions),
        models=tuple(
            Model(name, item.run_id, is_release=name == item.model_id, bytes=1)
            for item in versions
            for name in (item.model_id, f"{item.model_id}-checkpoint")
        ),
        runs=tuple(runs),
        indexes={name: 1 for item in versions for name in item.indexes} | {"f" * 16: 1},
        bundles={item.model_id: 1 for item in versions},
        working=frozenset({min(versions[-1].indexes)} if draw(st.booleans()) else ()),
    )
    limits = ReleaseParams(keep=draw(st.integers(1, 3)), keep_challengers=draw(st.integers(0, 2)))
    return inventory, rows, limits


def staying(inventory: Inventory, rows: Rows, limits: ReleaseParams) -> set[str]:
    """The rule in the words of the documentation, worked out from the oldest row on."""
    order: list[str] = []
    for row in rows:
        if row["champion"]:
            order = [version for version in order if version != row["champion"]]
            order.append(row["champion"])
    waiting = [row["version"] for row in rows if row["version"] not in order]
    newest_waiting = waiting[len(waiting) - min(limits.keep_challengers, len(waiting)) :]
    return {*order[-limits.keep :], *newest_waiting, *inventory.aliases.values()}


@given(histories())
def test_all_that_is_reached_stays_and_all_else_goes(
    history: tuple[Inventory, Rows, ReleaseParams],
) -> None:
    inventory, rows, limits = history
    kept = staying(inventory, rows, limits)
    assert {*kept_versions(rows, inventory.aliases, limits)} == kept
    gone = {(item.kind, item.name) for item in plan(inventory, rows, limits)}
    assert len(gone) == len(plan(inventory, rows, limits)), "nothing is listed twice"
    stay = [item for item in inventory.versions if item.version in kept]
    oldest = min((10 * int(item.version) for item in stay), default=0)
    indexes = {name for item in stay for name in item.indexes} | inventory.working
    for item in inventory.versions:
        expected = item.version not in kept
        assert (("version", item.version) in gone) is expected
        for model in (item.model_id, f"{item.model_id}-checkpoint"):
            assert (("model", model) in gone) is expected
        assert (("run", item.run_id) in gone) is expected
        assert (("bundle", item.model_id) in gone) is expected
    for name in inventory.indexes:
        assert (("index", name) in gone) is (name not in indexes)
    for run in inventory.runs:
        if run.run_id.startswith("failed"):
            assert (("run", run.run_id) in gone) is (run.started < oldest)


@given(histories(), st.integers(0, 60))
def test_a_prune_that_is_cut_short_is_finished_at_the_next_start(
    history: tuple[Inventory, Rows, ReleaseParams], done: int
) -> None:
    inventory, rows, limits = history
    removals = plan(inventory, rows, limits)
    announced = {"outcome": PRUNE, "version": None, "champion": None}
    after = [*rows, {**announced, "removed": [item.to_json() for item in removals]}]
    rest = orphans(without(inventory, removals[:done]), after)
    assert rest == removals[done:]
    assert orphans(without(inventory, removals), after) == []
    assert plan(without(inventory, removals), rows, limits) == []


def test_what_an_alias_reaches_is_not_removed_although_it_was_announced() -> None:
    versions = tuple(Version(name, f"run{name}", f"m-{name}") for name in "12")
    announced = [Removal("version", "1", "old"), Removal("run", "run1", "made version 1")]
    rows: Rows = [
        {"outcome": "PROMOTE", "version": "1", "champion": "1"},
        {"outcome": "PROMOTE", "version": "2", "champion": "2"},
        {"outcome": PRUNE, "removed": [item.to_json() for item in announced]},
    ]
    runs = (Run("run1", 1), Run("run2", 2))
    moved = Inventory(aliases={"champion": "1"}, versions=versions, runs=runs)
    assert orphans(moved, rows) == []
    kept = Inventory(aliases={"champion": "2"}, versions=versions, runs=runs)
    assert orphans(kept, rows) == announced


def test_a_version_that_the_ledger_does_not_know_stays() -> None:
    """A ledger that was lost is no reason to lose the releases too."""
    inventory = Inventory(
        aliases={}, versions=(Version("1", "run1", "m-1"),), runs=(Run("run1", 1),)
    )
    assert plan(inventory, [], ReleaseParams(keep=1, keep_challengers=0)) == []


def test_what_a_killed_process_left_goes_and_its_run_is_gone_on_with() -> None:
    half = Version("2", "run2", "m-2", pending=True)
    inventory = Inventory(
        aliases={"champion": "1"},
        versions=(Version("1", "run1", "m-1"), half),
        models=(
            Model("m-1", "run1"),
            Model("m-2", "run2"),
            Model("m-3", "run2", whole=False),
            Model("m-4", "run2", is_release=False),
        ),
        runs=(Run("run1", 1), Run("run2", 2)),
        scratch={"bundle.x": 5},
    )
    rows: Rows = [{"outcome": "PROMOTE", "version": "1", "champion": "1"}]
    found = [(item.kind, item.name) for item in orphans(inventory, rows)]
    assert found == [("version", "2"), ("model", "m-2"), ("model", "m-3"), ("scratch", "bundle.x")]
    settled = [*rows, {"outcome": "REJECT", "version": "2", "champion": "1"}]
    found = [(item.kind, item.name) for item in orphans(inventory, settled)]
    assert found == [("model", "m-3"), ("scratch", "bundle.x")]


def without(inventory: Inventory, removals: list[Removal]) -> Inventory:
    gone = {(item.kind, item.name) for item in removals}
    return Inventory(
        aliases=inventory.aliases,
        versions=tuple(v for v in inventory.versions if ("version", v.version) not in gone),
        models=tuple(m for m in inventory.models if ("model", m.model_id) not in gone),
        runs=tuple(r for r in inventory.runs if ("run", r.run_id) not in gone),
        indexes={k: v for k, v in inventory.indexes.items() if ("index", k) not in gone},
        bundles={k: v for k, v in inventory.bundles.items() if ("bundle", k) not in gone},
        working=inventory.working,
    )
