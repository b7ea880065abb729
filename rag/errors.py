"""The errors a user can meet, and the exit code that each one means.

    RagError                    1  the work failed
    ├── InputError              2  what the user gave cannot be used; carries every problem found
    │   ├── ParamsError            params.yaml, --set
    │   ├── DataError              documents, questions, predictions
    │   └── ModelError             weights that are missing, altered or refused
    ├── BusyError               3  another run holds the lock
    ├── IndexMismatchError      1  an index that is stale, partial or foreign
    ├── TrainingError           1  a loss that is not finite, nothing to train on
    ├── MetricError             1  a metric that cannot be computed
    └── ReleaseError            1  the registry, the gate or the switch

A message says what was found, what was expected, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence


class RagError(Exception):
    """The work failed; the message is one clear line."""

    exit_code = 1


class InputError(RagError):
    """What the user gave cannot be used. `problems` holds every problem found, one line each."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str], *, hint: str = "") -> None:
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        self.hint = hint
        super().__init__("\n".join([*self.problems, *([hint] if hint else [])]))


class ParamsError(InputError):
    """A parameter is unknown, impossible or contradicts another one."""


class DataError(InputError):
    """Documents, questions or predictions cannot be read or are inconsistent."""


class ModelError(InputError):
    """Model weights are missing, do not match their hash, or are in a refused format."""


class BusyError(RagError):
    """Another run holds the lock."""

    exit_code = 3


class IndexMismatchError(RagError):
    """The index is missing, partial, or was built from other vectors than those expected."""


class TrainingError(RagError):
    """Training cannot go on: no data, or a loss that is not finite."""


class MetricError(RagError):
    """A metric cannot be computed for the given predictions and references."""


class ReleaseError(RagError):
    """A release cannot be registered, compared, promoted or loaded."""
