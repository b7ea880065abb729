"""The ledger for people: what happened when, what was live at a time, a decision made again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import stores, terminal
from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params

_SHOWN = 10


def rows(artifacts: Artifacts) -> list[dict[str, Any]]:
    """Every row of the ledger, oldest first, its chain verified."""
    from rag.release import ledger

    return ledger.read(artifacts.ledger)


def at(artifacts: Artifacts, moment: str) -> dict[str, Any]:
    """`{"at", "version", "since", "outcome", "actor", "row"}`; version is None before the first."""
    from rag.release.history import live_at, parse_time

    when = parse_time(moment)
    row = live_at(rows(artifacts), when) or {}
    return {
        "at": when.isoformat(timespec="seconds"),
        "version": row.get("champion"),
        "since": row.get("time"),
        "outcome": row.get("outcome"),
        "actor": row.get("actor"),
        "row": row.get("sequence"),
    }


def verify(artifacts: Artifacts, params: Params) -> dict[str, Any]:
    """`{"rows", "mirrored"}`, checked against what MLflow was told; ReleaseError names the row."""
    from rag.release import ledger
    from rag.release.mirror import mirrored_head

    _connect(artifacts, params)
    named = mirrored_head(params)
    found = rows(artifacts)
    if named is not None:
        ledger.check_contains(artifacts.ledger, found, named, "MLflow")
    return {"rows": len(found), "mirrored": int(named.partition(":")[0]) if named else 0}


def replay(artifacts: Artifacts, params: Params, sequence: int) -> dict[str, Any]:
    """`{"row", "recorded", "replayed", "same", "differences"}` of a decision made again."""
    from rag.release.mirror import fetch_inputs
    from rag.release.replay import differences_of
    from rag.release.replay import replay as decide_again

    _connect(artifacts, params)
    row = next((row for row in rows(artifacts) if row.get("sequence") == sequence), None)
    if row is None:
        raise ReleaseError(f"the ledger has no row {sequence}; `ragloop releases --history`")
    with tempfile.TemporaryDirectory() as folder:
        decision = decide_again(fetch_inputs(row, Path(folder)), row)
    differences = differences_of(decision, row["decision"])
    return {
        "row": sequence,
        "recorded": row["decision"]["outcome"],
        "replayed": decision.outcome.value,
        "same": not differences,
        "differences": differences,
    }


def print_rows(found: Sequence[Mapping[str, Any]], *, last: int | None = None) -> None:
    """A table, oldest first; what each row is about and why it was so."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    if not found:
        return
    shown = found[-last:] if last else found
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"history, {len(shown)} of {len(found)} rows",
        title_style="dim",
        title_justify="left",
    )
    for title in ("row", "time", "what", "version", "live", "who"):
        table.add_column(title, no_wrap=True)
    table.add_column("why")
    for row in shown:
        table.add_row(
            str(row.get("sequence", "")),
            str(row.get("time", "")).replace("T", " ").removesuffix("+00:00"),
            str(row.get("outcome", "")),
            row.get("version") or "",
            row.get("champion") or "",
            escape(row.get("actor") or ""),
            escape(_why(row)),
        )
    terminal.result_console().print(table)


def print_recent(found: Sequence[Mapping[str, Any]]) -> None:
    """The last rows, below the list of releases."""
    print_rows(found, last=_SHOWN)


def print_at(found: Mapping[str, Any]) -> None:
    """One line."""
    console = terminal.result_console()
    if found["version"] is None:
        console.print(f"nothing was live at {found['at']}")
        return
    console.print(
        f"version [bold]{found['version']}[/] was live at {found['at']}, since {found['since']} "
        f"({found['outcome']}, row {found['row']})"
    )


def print_verified(found: Mapping[str, Any]) -> None:
    """One line."""
    known = f"MLflow knows row {found['mirrored']}" if found["mirrored"] else "MLflow knows none"
    terminal.result_console().print(f"{found['rows']} rows, the chain is whole; {known}")


def print_replay(found: Mapping[str, Any]) -> None:
    """One line, and one for each field that came out otherwise."""
    console = terminal.result_console()
    same = "the same record" if found["same"] else "another record"
    console.print(f"row {found['row']}: {found['recorded']}, again {found['replayed']}: {same}")
    for line in found["differences"]:
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _why(row: Mapping[str, Any]) -> str:
    decision = row.get("decision")
    if row.get("reason"):
        return str(row["reason"])
    reasons = decision.get("reasons", []) if isinstance(decision, Mapping) else []
    return str(reasons[0]) if reasons else ""


def _connect(artifacts: Artifacts, params: Params) -> None:
    from rag import tracking

    stores.initialise(artifacts, params)
    tracking.configure(artifacts, params)
