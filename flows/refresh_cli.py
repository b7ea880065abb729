"""The command `ragloop refresh`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.options import AsJson, Debug, Wait, print_json, project


def refresh(
    force: Annotated[
        bool, typer.Option("--force", help="Also where the champion has these documents.")
    ] = False,
    wait: Wait = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Index today's documents for the champion's models, without training."""
    from flows import manual, terminal, verdict

    reached = manual.refresh_now(*project(debug=debug), force=force, wait=wait)
    if as_json:
        print_json(reached.to_json())
    else:
        verdict.print_verdict(terminal.result_console(), reached)
