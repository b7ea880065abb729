"""What `ragloop watch` prints: each trigger with its evidence, and what was started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows import terminal

if TYPE_CHECKING:
    from flows.watch import Watched

_STYLES = {"fires": "bold green", "held": "yellow", "quiet": "default", "off": "dim"}


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
