"""The commands `ragloop releases` and `ragloop promote`: each calls one function."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.options import AsJson, Debug, print_json, project
from rag.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(releases)
    app.command()(promote)


def releases(
    *,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Say what was live then (UTC).")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Show the ledger: every decision and switch.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the ledger's chain, and MLflow's copy of it.")
    ] = False,
    replay: Annotated[
        int | None,
        typer.Option("--replay", metavar="ROW", help="Make the decision of a ledger row again."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the registered releases, newest first, and what became of them."""
    from flows import answers
    from flows import history as told

    if sum((at is not None, history, verify, replay is not None)) > 1:
        raise InputError("--at, --history, --verify and --replay are four questions: ask one")
    artifacts, params = project(debug=debug)
    if at is not None:
        found = told.at(artifacts, at)
        print_json(found) if as_json else told.print_at(found)
    elif verify:
        checked = told.verify(artifacts, params)
        print_json(checked) if as_json else told.print_verified(checked)
    elif replay is not None:
        again = told.replay(artifacts, params, replay)
        print_json(again) if as_json else told.print_replay(again)
    elif history:
        rows = told.rows(artifacts)
        print_json(rows) if as_json else told.print_rows(rows)
    else:
        listed = answers.list_releases(artifacts, params)
        if as_json:
            print_json(listed)
        else:
            answers.print_releases(listed)
            told.print_recent(told.rows(artifacts))


def promote(
    version: str,
    *,
    why: Annotated[str, typer.Option("--why", help="The reason, for the ledger.")],
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who decides; you, if left out.")
    ] = None,
    override: Annotated[
        bool, typer.Option("--override", help="Although the gate has not passed it.")
    ] = False,
    decline: Annotated[
        bool, typer.Option("--decline", help="Write down that it does not become champion.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a release champion that waits for it, or decline it."""
    from flows import approval, release_commands

    if override and decline:
        raise InputError("--override promotes and --decline does not: choose one")
    row = approval.promote(
        *project(debug=debug),
        version,
        actor=by or release_commands.actor(),
        reason=why,
        override=override,
        decline=decline,
    )
    print_json(row) if as_json else approval.print_promoted(row)
