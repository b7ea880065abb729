"""What a check is given and what it says: the site it looks at, and one finding a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from rag.artifacts import Artifacts
from rag.params import Params

if TYPE_CHECKING:
    from pathlib import Path

    from rag.release.registry import ReleaseVersion
    from rag.release.store_facts import StoreFacts

#: `skip`: cannot be looked at before another check is mended.
Level = Literal["ok", "skip", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "skip", "warn", "fail")
_SHOWN_PROBLEMS = 3


@dataclass(frozen=True)
class Finding:
    """One line: what was found, and the command that mends it (empty where nothing is wrong)."""

    level: Level
    message: str
    remedy: str = ""
    name: str = ""

    def to_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "level": self.level,
            "message": self.message,
            "remedy": self.remedy,
        }


def ok(message: str) -> Finding:
    """All is well."""
    return Finding("ok", message)


def warn(message: str, remedy: str) -> Finding:
    """Works, and somebody should know."""
    return Finding("warn", message, remedy)


def fail(message: str, remedy: str) -> Finding:
    """Broken, or about to be."""
    return Finding("fail", message, remedy)


def worst(problems: Sequence[Finding], otherwise: str) -> Finding:
    """All problems in one line, with the level and the remedy of the worst; else ok."""
    if not problems:
        return ok(otherwise)
    ordered = sorted(problems, key=lambda item: -LEVELS.index(item.level))
    messages = [item.message for item in ordered[:_SHOWN_PROBLEMS]]
    if len(ordered) > _SHOWN_PROBLEMS:
        messages.append(f"and {len(ordered) - _SHOWN_PROBLEMS} more")
    return Finding(ordered[0].level, "; ".join(messages), ordered[0].remedy)


class WaitsFor(Exception):
    """What a check reads cannot be had before another check is mended."""


@dataclass(frozen=True)
class Site:
    """An installation: a project, its parameters (None: not valid), the environment, the time."""

    artifacts: Artifacts
    valid_params: Params | None
    params_problems: Sequence[str]
    environment: Mapping[str, str]
    now: datetime

    @property
    def params(self) -> Params:
        if self.valid_params is None:
            raise WaitsFor("params")
        return self.valid_params

    @cached_property
    def store(self) -> StoreFacts:
        """The MLflow store, read once for all checks."""
        from rag.errors import ReleaseError
        from rag.release.store_facts import read_store

        params = self.params
        try:
            return read_store(self.artifacts, params)
        except ReleaseError:
            raise WaitsFor("mlflow-store") from None

    @cached_property
    def ledger(self) -> list[dict[str, Any]]:
        """The ledger's rows, its chain verified."""
        from rag.errors import ReleaseError
        from rag.release.ledger import read

        try:
            return read(self.artifacts.ledger)
        except ReleaseError:
            raise WaitsFor("ledger") from None

    @cached_property
    def served(self) -> tuple[ReleaseVersion, Path] | None:
        """The champion and the folder of its files, which may be gone; None without one here."""
        from rag.release.registry import CHAMPION

        champion = self.store.aliased(CHAMPION)
        if champion is None:
            if CHAMPION in self.store.aliases:
                raise WaitsFor("champion")
            return None
        bundle = self.store.bundle_of(self.artifacts, champion)
        return (champion, bundle) if bundle is not None else None


@dataclass(frozen=True)
class Check:
    """A check by name; `about` says in half a sentence what it looks at."""

    name: str
    about: str
    look: Callable[[Site], Finding]
