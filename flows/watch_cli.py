"""The commands `ragloop watch` and `ragloop feedback`: each calls one function."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.options import AsJson, Debug, print_json, project
from rag.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(watch)
    app.command()(feedback)


def watch(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look: start, tell and remember nothing.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look at the triggers once; retrain if one fires."""
    from flows import watch_commands

    found = watch_commands.watch_now(*project(debug=debug), dry_run=dry_run)
    print_json(found.to_json()) if as_json else watch_commands.print_watched(found)


def feedback(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION_ID|TEXT", help="As `ragloop ask` printed it.")
    ],
    *,
    right: Annotated[bool, typer.Option("--right", help="The answer was right.")] = False,
    wrong: Annotated[bool, typer.Option("--wrong", help="The answer was wrong.")] = False,
    answer: Annotated[
        str | None, typer.Option("--answer", metavar="TEXT", help="It should have been this one.")
    ] = None,
    document: Annotated[
        str | None,
        typer.Option("--document", metavar="ID", help="Where --answer is found, if not shown."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say whether an answer was right; a correction becomes a labelled question."""
    from flows import feedback_commands

    if sum((right, wrong, answer is not None)) != 1:
        raise InputError("say one of --right, --wrong and --answer TEXT")
    if document is not None and answer is None:
        raise InputError("--document goes with --answer TEXT")
    artifacts, _ = project(debug=debug)
    given = feedback_commands.give(
        artifacts, question, right=right, answer=answer, document=document
    )
    print_json(given) if as_json else feedback_commands.print_given(given)
