"""The command `ragloop export`: the champion's reader as a folder that other programs open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.options import AsJson, Debug, print_json, project


def export(
    folder: Path,
    merged: Annotated[
        bool,
        typer.Option("--merged", help="Fold an adapter into its base model: no peft is needed."),
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the champion's reader to a folder for transformers, or for peft if it is an adapter."""
    from flows import terminal

    found = export_champion(folder, merged=merged, debug=debug)
    if as_json:
        print_json(found)
    else:
        line = f"{found['folder']}: {found['holds']} of release {found['release']}"
        terminal.result_console().print(line, soft_wrap=True)


def export_champion(folder: Path, *, merged: bool, debug: bool) -> dict[str, Any]:
    """`{"release", "folder", "holds"}`; `holds` is adapter or weights."""
    from flows.answers import champion_bundle
    from rag.finetune.export import export_reader
    from rag.params import load_params

    version, bundle = champion_bundle(*project(debug=debug))
    params = load_params(bundle.params)
    holds = export_reader(params.reader, bundle.weights_cache, bundle.reader, folder, merge=merged)
    return {"release": version, "folder": str(folder), "holds": holds}
