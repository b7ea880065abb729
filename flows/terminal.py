"""What the terminal shows of a run: one calm line a step, with the time it took.

Progress goes to standard error, results to standard output, so a result can be piped. On a terminal
the step at work has a spinner, or a bar once it is known how much there is to do; elsewhere each
step is one plain line when it ends.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, ProgressColumn, Task, TaskID

_NAME_WIDTH = 16
_DETAIL_WIDTH = 56
_MARKS = {"done": "[green]✓[/]", "same": "[dim]=[/]", "failed": "[red]✗[/]"}


def result_console() -> Console:
    """Standard output; 120 columns where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def progress_console() -> Console:
    """Standard error."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        return console
    return Console(stderr=True, highlight=False, width=160, soft_wrap=True)


class Step:
    """A piece of work that is under way; `finish` sets what its line will say."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self.mark = "done"
        self.detail = ""

    def show(self, text: str) -> None:
        """Text beside the spinner."""
        from rich.markup import escape

        self._progress.update(self._task, detail=escape(text[:60]))

    def advance_to(
        self, label: str, done: int, total: int, seconds_left: float | None = None
    ) -> None:
        """Turns the spinner into a bar of what is being done now, and how long it will take."""
        if seconds_left is not None and done < total:
            label = f"{label}, {time_left(seconds_left)} left"
        self._progress.update(self._task, detail=label, completed=done, total=total, has_bar=True)

    def finish(self, detail: str, *, same: bool = False) -> None:
        """What the line says; `same` marks a step that found its work done already."""
        self.detail = detail
        self.mark = "same" if same else "done"


def time_left(seconds: float) -> str:
    """`45 s`, `12 min` or `3 h 20 min`: no finer than an estimate can be."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Shows a step while the block runs, and one line for it afterwards."""
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = progress_console()
    progress = Progress(
        TextColumn(" "),
        SpinnerColumn(style="cyan"),
        TextColumn(f"{{task.fields[name]:{_NAME_WIDTH}}}"),
        _bar_column(),
        TextColumn("[dim]{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    started = time.monotonic()
    with progress:
        task = progress.add_task("", total=None, name=name, detail="", has_bar=False)
        shown = Step(progress, task)
        try:
            yield shown
        except BaseException:
            shown.mark, shown.detail = "failed", ""
            raise
        finally:
            progress.stop()
            detail = textwrap.shorten(shown.detail, _DETAIL_WIDTH, placeholder=" ...")
            text = f"{name:{_NAME_WIDTH}} {detail:{_DETAIL_WIDTH}}"
            style = "dim" if shown.mark == "same" else "default"
            seconds = f"{time.monotonic() - started:8.1f} s"
            console.print(f"  {_MARKS[shown.mark]} [{style}]{escape(text)}[/] [dim]{seconds}[/]")


def say(text: str) -> None:
    """One line of progress, as rich markup."""
    progress_console().print(text)


def _bar_column() -> ProgressColumn:
    from rich.progress import BarColumn, ProgressColumn
    from rich.text import Text

    bar = BarColumn(bar_width=24)

    class Bar(ProgressColumn):
        """Nothing until it is known how much there is to do."""

        def render(self, task: Task) -> RenderableType:
            return bar.render(task) if task.fields["has_bar"] else Text("")

    return Bar()
