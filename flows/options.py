"""What the commands share: their common options, the project they run in, and JSON output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rag.artifacts import Artifacts
    from rag.params import Params

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show library output, and tracebacks of errors.")
]
Wait = Annotated[
    bool,
    typer.Option("--wait", help="Wait for a run that is at work, up to schedule.wait_minutes."),
]


def project(
    changes: list[str] | tuple[str, ...] = (), *, debug: bool, offline: bool | None = None
) -> tuple[Artifacts, Params]:
    """The project in the working directory, with the environment set for it."""
    from flows import settings
    from rag.artifacts import Artifacts
    from rag.params import load_params

    artifacts = Artifacts.here()
    params = load_params(artifacts.params, changes)
    settings.configure(artifacts, params, debug=debug, offline=offline)
    return artifacts, params


def print_json(value: Any) -> None:
    """A result on standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2))
