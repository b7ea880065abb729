"""The commands `ragloop index ...`: each calls one function and prints its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.options import AsJson, Debug, print_json, project

index = typer.Typer(
    help="Look at the index of the vectors, check it, build it, move it.", no_args_is_help=True
)

OfChampion = Annotated[
    bool,
    typer.Option("--champion", help="The champion's index instead of that of the last run."),
]


@index.command()
def status(champion: OfChampion = False, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show where the index is, whether it is complete, and how it is searched."""
    from flows import index_commands

    _show(index_commands.status(*project(debug=debug), champion=champion), as_json=as_json)


@index.command()
def verify(champion: OfChampion = False, as_json: AsJson = False, debug: Debug = False) -> None:
    """Compare the whole index with the embeddings; exit code 1 where it is wrong."""
    from flows import index_commands

    found = index_commands.verify(*project(debug=debug), champion=champion)
    _show(found, as_json=as_json)
    if found["problems"]:
        index_commands.print_advice()
        raise typer.Exit(1)


@index.command()
def rebuild(champion: OfChampion = False, as_json: AsJson = False, debug: Debug = False) -> None:
    """Build the index anew and put it in its place."""
    from flows import index_commands

    done = index_commands.publish(*project(debug=debug), champion=champion, rebuild=True)
    _show(done, as_json=as_json)


@index.command()
def publish(champion: OfChampion = False, as_json: AsJson = False, debug: Debug = False) -> None:
    """Build the index where params.yaml says, unless it is there."""
    from flows import index_commands

    _show(index_commands.publish(*project(debug=debug), champion=champion), as_json=as_json)


@index.command("export")
def export_file(
    file: Path, champion: OfChampion = False, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Write the index to one file."""
    from flows import index_commands

    done = index_commands.export_file(*project(debug=debug), file, champion=champion)
    _show(done, as_json=as_json)


@index.command("import")
def import_file(
    file: Path, champion: OfChampion = False, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Put the index that a file holds in its place, if it is the one of these vectors."""
    from flows import index_commands

    done = index_commands.import_file(*project(debug=debug), file, champion=champion)
    _show(done, as_json=as_json)


def _show(found: Mapping[str, Any], *, as_json: bool) -> None:
    from flows import index_commands

    print_json(found) if as_json else index_commands.print_facts(found)
