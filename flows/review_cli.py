"""The commands `ragloop review ...`: each calls one function and prints its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import AsJson, Debug, print_json, project

review = typer.Typer(
    help="Let people judge the answers, blind: which of two is better.", no_args_is_help=True
)


@review.command()
def sample(
    *,
    n: Annotated[int, typer.Option("--n", min=1, help="How many questions to ask about.")] = 50,
    ask_all: Annotated[
        bool,
        typer.Option("--all", help="Every question whose answers differ, instead of a sample."),
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="KEY=VALUE",
            help="Only questions with this language, document_id, answerable or slice. "
            "Repeatable: another value of a key is an alternative, another key a condition.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Draw this sheet again; without it, one is drawn."),
    ] = None,
    show_gold: Annotated[
        bool,
        typer.Option("--show-gold", help="Show the accepted answers, for raters who cannot tell."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder of the sheet; review-ID in the project if left out."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a blinded sheet: the last run's answers against the champion's, as page and as CSV."""
    from flows import review_commands, review_tables

    found = review_commands.sample(
        *project(debug=debug),
        n=None if ask_all else n,
        where=where or (),
        seed=seed,
        show_accepted=show_gold,
        output=output,
    )
    print_json(found) if as_json else review_tables.print_sample(found)


@review.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="Verdicts: CSV, or JSON as the page exports it.")],
    rater: Annotated[
        str | None, typer.Option("--rater", help="Who judged, in the place of what the file says.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="In the place of what this rater said before.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take in what one rater said; a file with anything wrong in it is refused whole."""
    from flows import review_commands, review_tables

    found = review_commands.import_verdicts(
        *project(debug=debug), file, rater=rater, replace=replace
    )
    print_json(found) if as_json else review_tables.print_review(found)


@review.command("list")
def list_reviews(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the reviews with their results so far, newest first."""
    from flows import review_commands, review_tables

    rows = review_commands.listed(*project(debug=debug))
    print_json(rows) if as_json else review_tables.print_reviews(rows)


@review.command()
def show(
    review_id: Annotated[str, typer.Argument(metavar="REVIEW")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show one review: wins, losses, ties, win rate, agreement, and every judgement."""
    from flows import review_commands, review_tables

    found = review_commands.shown(*project(debug=debug), review_id)
    print_json(found) if as_json else review_tables.print_review(found)
