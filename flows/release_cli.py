"""The commands `ragloop rollback` and `ragloop prune`: each calls one function."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.options import AsJson, Debug, print_json, project
from rag.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(rollback)
    app.command()(prune)


def rollback(
    version: Annotated[
        str | None,
        typer.Argument(help="The version; left out, the champion before the last switch."),
    ] = None,
    *,
    to: Annotated[str | None, typer.Option("--to", help="The same, by name.")] = None,
    why: Annotated[str, typer.Option("--why", help="The reason, for the ledger.")] = "",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build its index first where it is gone.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make an earlier champion live again, at once and without evaluating it."""
    from flows import release_commands

    if version and to and version != to:
        raise InputError(f"two versions to roll back to: {version} and --to {to}")
    row = release_commands.rollback(
        *project(debug=debug), version or to, reason=why, rebuild=rebuild
    )
    print_json(row) if as_json else release_commands.print_rollback(row)


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove old releases with everything that only they need."""
    from flows import release_commands

    found = release_commands.prune(*project(debug=debug), dry_run=dry_run)
    print_json(found.to_json()) if as_json else release_commands.print_pruned(found)
