"""The errors of pydantic as lines for a person: the path, what is wrong, what was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel


def describe_errors(errors: Sequence[Any]) -> list[str]:
    """One line a problem; the alternatives that a value could have been are one problem.

    A contradiction of our own is a problem for each of its lines.
    """
    alternatives: dict[tuple[str, str, str], list[str]] = {}
    for item in errors:
        unknown = item["type"] == "extra_forbidden"
        path = ".".join(part for part in map(str, item["loc"]) if not _is_alternative(part))
        given = item.get("input")
        quiet = unknown or isinstance(given, (Mapping, BaseModel))
        message = "unknown key" if unknown else str(item["msg"]).removeprefix("Value error, ")
        for line in message.splitlines():
            own = line if item["type"] == "value_error" else ""
            key = (path or line, "" if quiet else f", got {given!r}", own)
            alternatives.setdefault(key, []).append(line)
    described = []
    for (path, got, _), messages in alternatives.items():
        first, *others = dict.fromkeys(messages)
        rest = "".join(f" or {other.removeprefix('Input should be ')}" for other in others)
        described.append(path if path == first else f"{path}: {first}{rest}{got}")
    return described


def _is_alternative(part: str) -> bool:
    return part in ("float", "int", "str", "[key]") or part.startswith("literal[")
