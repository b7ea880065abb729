"""The command `ragloop doctor`: calls one function and prints its findings."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.options import AsJson, Debug, print_json


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(doctor)


def doctor(
    *,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This check. Repeatable.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A warning makes the exit code 1 too.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look at the whole installation; exit code 1 where something is broken. Changes nothing."""
    import os
    from datetime import UTC, datetime

    from flows import doctor as doctors
    from flows import settings
    from rag.artifacts import Artifacts

    environment = dict(os.environ)
    settings.silence(debug=debug, offline=True)
    site = doctors.site_of(Artifacts.here(), environment, datetime.now(UTC))
    findings = doctors.examine(site, only or ())
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        doctors.print_findings(findings)
    if code := doctors.exit_code(findings, strict=strict):
        raise typer.Exit(code)
