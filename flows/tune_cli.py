"""The command `ragloop tune`: better values for the parameters in `tune.space`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import AsJson, Debug, print_json, project
from rag.errors import BusyError, InputError

if TYPE_CHECKING:
    from rag.artifacts import Artifacts
    from rag.params import Params

_SHOWN_TRIALS = 10


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(tune)


def tune(
    *,
    trials: Annotated[
        int | None,
        typer.Option("--trials", "-n", min=1, help="Of the study in all; tune.trials if left out."),
    ] = None,
    timeout_minutes: Annotated[
        float | None,
        typer.Option("--timeout-minutes", min=0.0, help="Stop then; run it again to go on."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the best values to params.yaml.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Search for better parameters, judged on the dev questions."""
    artifacts, params = project(debug=debug)
    _require_optuna()
    from flows import tune as searching

    result = searching.tune(artifacts, params, trials=trials, timeout_minutes=timeout_minutes)
    changes = changes_to(params, result["best"]["params"])
    result |= {"diff": diff(artifacts, changes), "applied": False}
    busy = _write(artifacts, changes) if apply and changes else None
    result["applied"] = bool(apply and changes and busy is None)
    print_json(result) if as_json else print_result(result)
    if busy is not None:
        raise busy


def changes_to(params: Params, values: Mapping[str, Any]) -> list[str]:
    """`key=value` for each value that differs from params.yaml, as `--set` takes it."""
    from rag.search_space import with_values

    now, then = params.flat(), with_values(params, values).flat()
    return [
        f"{key}={json.dumps(value)}"
        for key, value in values.items()
        if any(
            now.get(name) != then.get(name)
            for name in now.keys() | then.keys()
            if name == key or name.startswith(f"{key}.")
        )
    ]


def diff(artifacts: Artifacts, changes: list[str]) -> str:
    """What `--apply` does to params.yaml, as a unified diff; empty where nothing changes."""
    from flows import manual

    before = artifacts.params.read_text(encoding="utf-8")
    after = manual.changed_text(artifacts, changes) if changes else before
    name = artifacts.params.name
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), name, name, n=2
    )
    return "".join(lines)


def print_result(result: Mapping[str, Any]) -> None:
    """The trials, the best one against the current values, importance and the diff."""
    from rich.markup import escape
    from rich.table import Table

    from flows import terminal

    console = terminal.result_console()
    best, current, counts = result["best"], result["current"], result["trials"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("trial", result["metric"], *best["params"], ""):
        table.add_column(title, justify="right" if title == result["metric"] else "left")
    for row in _best_rows(result["rows"])[:_SHOWN_TRIALS]:
        value = "" if row["value"] is None else f"{row['value']:.2f}"
        cells = [str(row["trial"]), value, *(str(item) for item in row["params"].values())]
        cells.append("" if row["state"] == "complete" else row["state"])
        table.add_row(*map(escape, cells), style="bold" if row["trial"] == best["trial"] else "")
    console.print(table)
    console.print(
        f"\n{result['study']}: {counts['complete']} trials completed, {counts['pruned']} pruned, "
        f"{counts['fail']} failed"
    )
    before = "" if current is None else f" (params.yaml as it is: {_shown(current)})"
    console.print(f"best: trial {best['trial']}, {result['metric']} {best['value']:.2f}{before}")
    if result["importance"]:
        shares = (f"{key} {100 * share:.0f} %" for key, share in result["importance"].items())
        console.print(f"importance: {', '.join(shares)}")
    if not result["diff"]:
        console.print("params.yaml has the best values already")
        return
    console.print(f"\n{escape(result['diff'])}", end="", soft_wrap=True)
    console.print(
        "\nwritten to params.yaml; `ragloop run` trains with it"
        if result["applied"]
        else "\n`ragloop tune --apply` writes this to params.yaml; the gate judges it on the test "
        "questions",
        soft_wrap=True,
    )


def _best_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Completed trials from the best down, then the others in their order."""
    return sorted(
        rows,
        key=lambda row: (row["state"] != "complete", -(row["value"] or 0.0), row["trial"]),
    )


def _shown(row: Mapping[str, Any]) -> str:
    return row["state"] if row["state"] != "complete" else f"{row['value']:.2f}"


def _write(artifacts: Artifacts, changes: list[str]) -> BusyError | None:
    """Writes the changes under the project's lock; returns what kept it from doing so."""
    from flows import lock, manual

    try:
        with lock.hold(artifacts.lock, "ragloop tune --apply"):
            manual.write_changes(artifacts, changes)
    except BusyError as busy:
        return busy
    return None


def _require_optuna() -> None:
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise InputError(
            "ragloop tune needs optuna, which is not installed",
            hint='install it with: pip install "ragloop[tune]"',
        )
