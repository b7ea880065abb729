"""What the parts of `ragloop up` say, in one log: on the terminal, and in files that stay small.

On the terminal a line carries the part's name; in `.ragloop/logs/up.log` the time (UTC) too. Lines
of a part that is starting go to the file only, until it fails: then the last of them are shown.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from logging.handlers import RotatingFileHandler
from pathlib import Path

from flows import terminal
from rag.artifacts import Artifacts
from rag.params import UpParams

SHOWN_LINES = 12
_COLOURS = {"prefect": "blue", "mlflow": "magenta", "retrain": "green"}
_MEGABYTE = 1_000_000


def log_file(artifacts: Artifacts) -> Path:
    """The newest of the files; older ones end in `.1`, `.2` and so on."""
    return artifacts.state / "logs" / "up.log"


class UpLog:
    """Takes lines from any thread; `close` when no more will come."""

    def __init__(self, path: Path, params: UpParams) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files = _Files(
            path,
            maxBytes=params.log_megabytes * _MEGABYTE,
            backupCount=max(1, params.log_files),  # with none the file would grow for ever
            encoding="utf-8",
        )
        formatter = logging.Formatter("%(asctime)sZ %(name)-8s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self._files.setFormatter(formatter)
        self._kept: dict[str, deque[str]] = {}
        self._silent: set[str] = set()

    def add(self, part: str, line: str) -> None:
        """A line of a part."""
        self._write(part, line)
        if part in self._silent:
            self._kept.setdefault(part, deque(maxlen=SHOWN_LINES)).append(line)
        else:
            _show(part, line)

    def say(self, text: str) -> None:
        """A line of ours, as rich markup."""
        from rich.text import Text

        self._write("up", Text.from_markup(text).plain.strip())
        _say(text)

    def silence(self, part: str) -> None:
        """Keeps a part's lines off the terminal, from now until `listen` or `show_kept`."""
        self._kept.pop(part, None)
        self._silent.add(part)

    def listen(self, part: str) -> None:
        """Shows a part's lines from now on."""
        self._silent.discard(part)

    def show_kept(self, part: str) -> None:
        """Shows the last lines that were kept off the terminal, and all further ones."""
        self.listen(part)
        for line in self._kept.pop(part, ()):
            _show(part, line)

    def close(self) -> None:
        """Closes the file."""
        self._files.close()

    def _write(self, part: str, line: str) -> None:
        record = logging.LogRecord(part, logging.INFO, "", 0, line, None, None)
        self._files.handle(record)  # handle, not emit: it takes the lock


class _Files(RotatingFileHandler):
    """Says once that it cannot write, as on a full disk, where `logging` prints a page a line."""

    _is_told = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._is_told:
            self._is_told = True
            _say(f"[yellow]{self.baseFilename} cannot be written: {sys.exc_info()[1]}[/]")


def _show(part: str, line: str) -> None:
    from rich.markup import escape

    colour = _COLOURS.get(part, "cyan")
    _say(f"[{colour}]{part:8}[/][dim]│[/] {escape(line)}")


def _say(text: str) -> None:
    """On the terminal, which may be a file on the full disk: whoever supervises goes on."""
    with contextlib.suppress(OSError):
        terminal.say(text)
