"""What differs between a recorded run and its reproduction: files by stage, and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flows.dvc_files import FileFacts, StageLock

MISSING = "missing"


@dataclass(frozen=True)
class Difference:
    """A file that is not as recorded; both hashes are MD5."""

    stage: str
    kind: Literal["input", "output"]
    path: str
    recorded: str
    found: str

    def spoken(self) -> str:
        return (
            f"{self.stage}: {self.kind} {self.path}: recorded {self.recorded}, found {self.found}"
        )


def compare_stages(
    recorded: Sequence[StageLock],
    found: Sequence[StageLock],
    recorded_files: Mapping[str, str],
    list_found: Callable[[str], Mapping[str, FileFacts]],
) -> list[Difference]:
    """Every file that differs, in the order of the stages; for each, inputs before outputs.

    An input that an earlier stage makes is told as that stage's output alone. `recorded_files` is
    path to MD5; a folder whose files were not recorded is told whole.
    """
    made = {path for stage in recorded for path in stage.outputs}
    now = {stage.name: stage for stage in found}
    differences = []
    for stage in recorded:
        other = now.get(stage.name, StageLock(stage.name, {}, {}))
        inputs = {path: md5 for path, md5 in stage.inputs.items() if path not in made}
        pairs: tuple[tuple[Literal["input", "output"], Any, Any], ...] = (
            ("input", inputs, other.inputs),
            ("output", stage.outputs, other.outputs),
        )
        for kind, then, here in pairs:
            for path, md5 in then.items():
                if here.get(path) != md5:
                    files = _files_that_differ(path, recorded_files, list_found(path))
                    for name, old, new in files or [(path, md5, here.get(path, MISSING))]:
                        differences.append(Difference(stage.name, kind, name, old, new))
    return differences


def compare_inputs(
    recorded: Sequence[StageLock],
    recorded_files: Mapping[str, str],
    found: Mapping[str, FileFacts],
) -> list[Difference]:
    """Files that are not as recorded, each with the first stage that reads it."""
    differences = []
    for path, old, new in _files_that_differ("", recorded_files, found):
        readers = [stage.name for stage in recorded if any(_is_at(path, p) for p in stage.inputs)]
        differences.append(Difference((readers or ["no stage"])[0], "input", path, old, new))
    return differences


def compare_metrics(
    recorded: Mapping[str, Any], found: Mapping[str, Any], system: str = "tuned"
) -> list[dict[str, Any]]:
    """A row for each metric: recorded with its interval, reproduced, and whether it lies within."""
    then = recorded.get("systems", {}).get(system, {})
    now = found.get("systems", {}).get(system, {})
    rows = []
    for name, facts in then.items():
        value = now.get(name, {}).get("value")
        low, high = facts.get("low", facts["value"]), facts.get("high", facts["value"])
        rows.append(
            {
                "metric": name,
                "recorded": facts["value"],
                "low": low,
                "high": high,
                "reproduced": value,
                "within": value is not None and low <= value <= high,
            }
        )
    return rows


def _files_that_differ(
    path: str, recorded: Mapping[str, str], found: Mapping[str, FileFacts]
) -> list[tuple[str, str, str]]:
    then = {name: md5 for name, md5 in recorded.items() if _is_at(name, path)}
    now = {name: facts.md5 for name, facts in found.items()}
    if not then:
        return []
    return [
        (name, then.get(name, MISSING), now.get(name, MISSING))
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _is_at(name: str, path: str) -> bool:
    """Whether a file is at a path or below it; everything is below the empty path."""
    return not path or name == path or name.startswith(f"{path}/")
