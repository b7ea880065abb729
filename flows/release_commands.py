"""Releases by hand: `ragloop rollback` and `ragloop prune`, both under the project's lock."""

from __future__ import annotations

import getpass
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows import lock, reconcile, stage_cache, stores, terminal
from rag.artifacts import Artifacts
from rag.params import Params

if TYPE_CHECKING:
    from rag.release.retention import Removal

_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be."""

    removals: Sequence[Removal]
    dry_run: bool = False

    @property
    def bytes(self) -> int:
        """Of all whose size is known."""
        return sum(item.bytes or 0 for item in self.removals)

    @property
    def detail(self) -> str:
        """`2 versions, 34.1 MB`."""
        if not self.removals:
            return "nothing to remove"
        versions = sum(item.kind == "version" for item in self.removals)
        return f"{_counted(versions, 'version')}, {_megabytes(self.bytes)}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for `--json`."""
        return {
            "dry_run": self.dry_run,
            "bytes": self.bytes,
            "removed": [item.to_json() for item in self.removals],
        }


def rollback(
    artifacts: Artifacts,
    params: Params,
    version: str | None,
    *,
    reason: str,
    rebuild: bool = False,
) -> dict[str, Any]:
    """Makes an earlier champion live again; returns the ledger's row.

    Without `version` that is the champion before the last switch. `rebuild` first builds its index
    where it is gone.
    """
    from rag.release import registry
    from rag.release.rollback import roll_back, target_of
    from rag.release.served import rebuild_index

    with _at_work(artifacts, params, "ragloop rollback"):
        reconcile.reconcile(artifacts, params)
        if rebuild:
            target = target_of(artifacts, params, version)
            rebuild_index(artifacts, params, registry.get_release(params, target))
        return roll_back(artifacts, params, version, actor=actor(), reason=reason)


def prune(artifacts: Artifacts, params: Params, *, dry_run: bool) -> Pruned:
    """Removes what neither an alias nor the newest rows of the ledger reach; or only lists it."""
    from rag.release import tidying

    with _at_work(artifacts, params, "ragloop prune"):
        for line in tidying.settle(artifacts, params):
            terminal.say(f"  [dim]{line}[/]")
        if dry_run:
            planned = tidying.plan_prune(artifacts, params)
            results = stage_cache.prune(artifacts, params, dry_run=True)
            return Pruned([*planned, *results], dry_run=True)
        return prune_old(artifacts, params)


def prune_old(artifacts: Artifacts, params: Params) -> Pruned:
    """The same at the end of a run, which holds the lock and has put everything in order."""
    from rag.release import tidying

    removed = tidying.prune(artifacts, params)
    return Pruned([*removed, *stage_cache.prune(artifacts, params)])


def actor() -> str:
    """Who does it: the user and the machine, for the ledger."""
    return f"{getpass.getuser()}@{platform.node()}"


def print_rollback(row: Mapping[str, Any]) -> None:
    """What is live now, and what was."""
    console = terminal.result_console()
    live, before = row["champion"], row["champion_before"]
    console.print(f"version [bold]{live}[/] is the champion again, in place of version {before}")
    console.print("[dim]to take it back: ragloop rollback[/]")


def print_pruned(pruned: Pruned) -> None:
    """A row for each thing, with its size and the reason; one line where there is nothing."""
    from rich import box
    from rich.table import Table

    console = terminal.result_console()
    if not pruned.removals:
        console.print("Nothing to remove.")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for title, side in (("what", "left"), ("", "left"), ("size", "right"), ("why", "left")):
        table.add_column(title, justify=side, no_wrap=title != "why")  # type: ignore[arg-type]
    for item in pruned.removals:
        size = "" if item.bytes is None else _megabytes(item.bytes)
        table.add_row(item.kind, item.name[:_SHOWN_DIGITS], size, item.reason)
    console.print(table)
    done = "would be removed" if pruned.dry_run else "removed"
    console.print(f"{_counted(len(pruned.removals), 'thing')} {done}, {_megabytes(pruned.bytes)}")


@contextmanager
def _at_work(artifacts: Artifacts, params: Params, what: str) -> Iterator[None]:
    """The lock held, and the stores ready."""
    from rag import tracking

    with lock.hold(artifacts.lock, what):
        stores.initialise(artifacts, params)
        tracking.configure(artifacts, params)
        yield


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
