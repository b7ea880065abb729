"""Rules of the house that no single module can hold: arrows point down, imports do nothing else."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for room in ("rag", "flows") for path in (ROOT / room).rglob("*.py"))
EVERY_FILE = sorted(
    path for room in ("rag", "flows", "tests", "benchmarks") for path in (ROOT / room).rglob("*.py")
)
MAX_LINES = 300

#: From the ground up. A room imports itself and the rooms below it; two rooms on one floor do not
#: know each other. A file that stands in no room has no place in the house: name it here first.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("rag.errors",),
    ("rag.problem_lines", "rag.yaml_input", "rag.retrieval_params"),
    (
        "rag.reader_params",
        "rag.gate_params",
        "rag.data_params",
        "rag.schedule_params",
        "rag.tune_params",
    ),
    ("rag.watch_params",),
    ("rag.records", "rag.artifacts", "rag.params", "rag.weights", "rag.progress", "rag.startup"),
    ("rag.corpus", "rag.search_space"),
    ("rag.retrieval",),
    ("rag.reading",),
    ("rag.finetune",),
    ("rag.evaluation", "rag.monitoring"),
    ("rag.release",),
    ("rag.stages", "rag.tracking"),
    ("rag.__main__",),
    ("flows",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

#: Who may import these libraries; everybody else goes through them.
ALLOWED = {
    "prefect": ("flows",),
    "mlflow": ("rag.tracking", "rag.release", "flows"),
    "qdrant_client": ("rag.retrieval",),
    "qdrant_edge": ("rag.retrieval",),
}
#: Files that `evaluate` and MLflow load by their path, when these libraries are there already.
LOADED_BY_PATH = ("rag.evaluation.metrics.", "rag.release.model")
HEAVY = {"torch", "transformers", "sentence_transformers", "mlflow", "prefect", "matplotlib"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in a file, also of those inside functions.

    `from rag import records` yields rag.records: what is imported may be a module.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: relative import"
            module = str(node.module)
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in (names if module == "rag" else [module]))


def is_below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def room_of(module: str) -> str | None:
    return next((room for room in FLOOR_OF if is_below(module, room)), None)


def lines(found: list[str]) -> str:
    return "\n" + "\n".join(found)


def test_the_sources_are_found() -> None:
    assert len(SOURCES) > 20


def test_every_module_has_a_room() -> None:
    homeless = [module_name(path) for path in SOURCES if not room_of(module_name(path))]
    assert homeless == ["rag"], "give it a floor in FLOORS, or a room to stand in"


def test_arrows_point_down() -> None:
    found = []
    for path in SOURCES:
        room = room_of(module_name(path))
        for line, imported in imports_of(path):
            other = room_of(imported)
            if other in (None, room):
                continue
            if room is None or FLOOR_OF[other] >= FLOOR_OF[room]:
                found.append(f"{path.relative_to(ROOT)}:{line}: {room or 'rag'} imports {other}")
    assert not found, lines(found)


@pytest.mark.parametrize("library", ALLOWED)
def test_only_its_room_knows_a_library(library: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: only {', '.join(ALLOWED[library])} may import {library}"
        for path in SOURCES
        for line, imported in imports_of(path)
        if is_below(imported, library)
        and not any(is_below(module_name(path), room) for room in ALLOWED[library])
    ]
    assert not found, lines(found)


def test_a_violation_would_be_found(tmp_path: Path) -> None:
    """An import inside a function counts, in each of its forms."""
    path = tmp_path / "sneaky.py"
    path.write_text(
        "def f():\n import prefect.flows\n from rag import stages\n from mlflow.models import x\n"
    )
    assert list(imports_of(path)) == [
        (2, "prefect.flows"),
        (3, "rag.stages"),
        (4, "mlflow.models"),
    ]
    assert room_of("rag.stages") == "rag.stages"
    assert room_of("rag.recordsets") is None
    assert FLOOR_OF["rag.corpus"] < FLOOR_OF["rag.retrieval"] < FLOOR_OF["rag.reading"]


def test_no_file_outgrows_a_head() -> None:
    counts = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in EVERY_FILE
    }
    found = [f"{name}: {count}" for name, count in counts.items() if count > MAX_LINES]
    assert not found, f"over {MAX_LINES} lines, split by what they do:{lines(found)}"


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [path for path in EVERY_FILE if path.stem in drawers or path.parent.name in drawers]


def test_every_module_says_what_it_is() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in EVERY_FILE
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, f"no module docstring:{lines(found)}"


def facts_after_import(modules: list[str], folder: Path) -> dict[str, list[str]]:
    """Imports `modules` in a process of their own; says what that loaded and what it changed."""
    home, work = folder / "home", folder / "work"
    for made in (home, work):
        made.mkdir()
    code = f"""
import importlib, json, logging, os, sys
environment, handlers, level = dict(os.environ), list(logging.root.handlers), logging.root.level
for module in {modules!r}:
    importlib.import_module(module)
print(json.dumps({{
    "loaded": sorted({{name.partition(".")[0] for name in sys.modules}}),
    "environment": sorted(set(os.environ.items()) ^ set(environment.items())),
    "logging": [str(item) for item in logging.root.handlers if item not in handlers]
        + (["level"] if logging.root.level != level else []),
}}))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    facts["files"] = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))
    return facts


def test_the_command_line_starts_without_heavy_libraries(tmp_path: Path) -> None:
    facts = facts_after_import(["rag", "flows", "flows.cli"], tmp_path)
    assert not HEAVY & set(facts["loaded"]), "import these inside the functions that use them"


def test_importing_the_work_has_no_effect(tmp_path: Path) -> None:
    modules = [
        module_name(path)
        for path in SOURCES
        if path.is_relative_to(ROOT / "rag")
        and path.name != "__main__.py"
        and not module_name(path).startswith(LOADED_BY_PATH)
    ]
    facts = facts_after_import(modules, tmp_path)
    assert facts["environment"] == []
    assert facts["logging"] == []
    assert facts["files"] == []
    assert not HEAVY & set(facts["loaded"]), "import these inside the functions that use them"
