"""`ragloop doctor`: every check of `flows.doctor_checks`, each on its own, in one line.

Nothing is written, made or migrated, and no library that takes seconds to import is needed. A check
that raises is a finding of its own: a doctor who faints must not be taken for a healthy patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from flows import terminal
from flows.doctor_checks.every import CHECKS
from flows.doctor_checks.finding import LEVELS, Check, Finding, Site, WaitsFor
from rag.artifacts import Artifacts
from rag.errors import InputError
from rag.params import Params, load_params
from rag.release.redaction import without_credentials

_MARKS = {"ok": "[green]✓[/]", "skip": "[dim]·[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}
_NAME_WIDTH = max(len(check.name) for check in CHECKS)


def site_of(artifacts: Artifacts, environment: Mapping[str, str], now: datetime) -> Site:
    """The installation whose project this is; parameters that are not valid are a finding."""
    params: Params | None = None
    problems: Sequence[str] = ()
    try:
        params = load_params(artifacts.params)
    except InputError as error:
        problems = error.problems
    except OSError as error:
        problems = (f"params.yaml cannot be read: {error}",)
    return Site(artifacts, params, problems, environment, now)


def examine(site: Site, only: Sequence[str] = ()) -> list[Finding]:
    """A finding for every check, or for those that are named; InputError for an unknown name."""
    known = {check.name: check for check in CHECKS}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(f"no check {', '.join(unknown)}; there are {', '.join(known)}")
    return [look(check, site) for check in CHECKS if not only or check.name in only]


def look(check: Check, site: Site) -> Finding:
    """What one check finds, whatever happens in it."""
    try:
        found = check.look(site)
        return replace(found, name=check.name, message=without_credentials(found.message))
    except WaitsFor as other:
        return Finding("skip", f"cannot be looked at before `{other}` is mended", name=check.name)
    except Exception as error:  # noqa: BLE001
        said = " ".join(str(error).split())[:200]
        return Finding(
            "fail",
            f"the check itself failed: {type(error).__name__}: {without_credentials(said)}",
            f"ragloop doctor --only {check.name} --debug",
            check.name,
        )


def exit_code(findings: Sequence[Finding], *, strict: bool) -> int:
    """0 fine, 1 broken; with `strict` a warning counts as broken."""
    counted = ("warn", "fail") if strict else ("fail",)
    return int(any(finding.level in counted for finding in findings))


def print_findings(findings: Sequence[Finding]) -> None:
    """One line a finding, the way out below it, and a count at the end."""
    from rich.markup import escape

    console = terminal.result_console()
    for finding in findings:
        line = f"{_MARKS[finding.level]} {finding.name:{_NAME_WIDTH}}  {escape(finding.message)}"
        console.print(line, soft_wrap=True)
        if finding.remedy:
            indent = " " * (_NAME_WIDTH + 4)
            console.print(f"{indent}[dim]→ {escape(finding.remedy)}[/]", soft_wrap=True)
    counts = {level: sum(item.level == level for item in findings) for level in LEVELS}
    words = {"ok": "fine", "skip": "not looked at", "warn": "warned", "fail": "broken"}
    console.print(", ".join(f"{counts[level]} {words[level]}" for level in LEVELS if counts[level]))
