"""The commands `ragloop lineage` and `ragloop reproduce`: each calls one function."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.options import AsJson, Debug, print_json, project

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="Its number, or champion or challenger.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(lineage)
    app.command()(reproduce)


def lineage(version: Version, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show what a release was made from: run, commit, data, params, parents."""
    from flows import lineage_tree, provenance

    artifacts, params = project(debug=debug)
    found = provenance.describe(provenance.read_origin(artifacts, params, version), params)
    print_json(found) if as_json else lineage_tree.print_lineage(found)


def reproduce(
    version: Version,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the checkout in which it was made.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a release again, apart from your checkout, and compare every byte."""
    from flows import reproduce as making

    found = making.reproduce(*project(debug=debug), version, keep=keep)
    print_json(found.to_json()) if as_json else making.print_reproduction(found)
    if found.outcome == making.DIFFERENT:
        raise typer.Exit(1)
