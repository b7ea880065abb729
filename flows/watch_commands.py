"""`ragloop watch`: one look by hand, and what it prints of each trigger and of what was started."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flows import server, stores, terminal
from flows.look import Watched, look
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.params import Params

_STYLES = {"fires": "bold green", "held": "yellow", "quiet": "default", "off": "dim"}


def watch_now(artifacts: Artifacts, params: Params, *, dry_run: bool) -> Watched:
    """The flow in this process; a `dry_run` only looks: it starts, tells and remembers nothing."""
    stores.initialise(artifacts, params)
    if dry_run:
        return Watched(look(artifacts, params, datetime.now(UTC)))
    with server.prefect_api(artifacts):
        from flows.watch import watch

        state: Any = watch(return_state=True)
        watched = state.result()
    if not isinstance(watched, Watched):
        raise RagError(f"the look ended as {state.name}: {state.message}")
    return watched


def print_watched(found: Watched) -> None:
    """A line a trigger, then the run that was started and why."""
    from rich.markup import escape

    console = terminal.result_console()
    for trigger in found.look.triggers:
        style = _STYLES.get(trigger.status, "bold red")
        status = f"[{style}]{trigger.status:6}[/]"
        console.print(f"{trigger.name:16} {status} {escape(trigger.summary)}", soft_wrap=True)
    if found.started is None:
        console.print("no run was started")
        return
    triggers = ", ".join(found.started["reason"]["triggers"])
    where = found.started.get("run") or f"verdict {found.started['verdict']['outcome']}"
    console.print(f"a run was started for {triggers}: {where}", soft_wrap=True)
