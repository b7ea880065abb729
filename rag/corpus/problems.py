"""What is wrong with a file or a row, said the same way everywhere: `file:line: reason`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `line` counts from 1; None where a format has no lines.

    `row` is what was set aside because of it, as it was read.

    >>> str(Problem("questions.jsonl", 12, "answer 'x' is not in document 'vessels/petrel.md'"))
    "questions.jsonl:12: answer 'x' is not in document 'vessels/petrel.md'"
    """

    file: str
    line: int | None
    reason: str
    row: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}"

    def reject(self) -> dict[str, Any]:
        """The row of `rejects.jsonl` that tells of it."""
        return {"file": self.file, "line": self.line, "reason": self.reason, "row": self.row}


class Unreadable(Exception):
    """A file that cannot be read at all; the reader turns it into a Problem."""

    def __init__(self, reason: str, *, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
