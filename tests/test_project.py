"""The files beside the code agree with it and with each other: pins, stages, the tour."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
#: The rooms in the order data flows, as the tour shows them.
ROOMS = ("corpus", "retrieval", "reading", "finetune", "evaluation", "monitoring", "release")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return table


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """Names of the packages that pyproject.toml asks for."""
    table = project()
    wanted = list(table["dependencies"])
    for extra in extras:
        wanted += table["optional-dependencies"][extra]
    return {canonical(re.split(r"[\[<>=!~; ]", item)[0]) for item in wanted}


def pins() -> dict[str, str]:
    rows = [row for row in read("constraints.txt").splitlines() if row and row[0] != "#"]
    assert [row for row in rows if not re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.]+", row)] == []
    return dict(row.split("==") for row in rows)


def test_every_pin_is_exact_sorted_and_given_once() -> None:
    rows = [row for row in read("constraints.txt").splitlines() if row and row[0] != "#"]
    assert [row.split("==")[0] for row in rows] == sorted(pins())


def test_every_dependency_is_pinned() -> None:
    assert declared("dev", "openvino", "ray", "tune", "benchmarks") - set(pins()) == {"ragloop"}


def test_the_pins_that_schedules_depend_on() -> None:
    """fastapi 0.151 stops Prefect's API, sqlalchemy 2.1 its scheduler."""
    version = {name: tuple(map(int, pins()[name].split("."))) for name in ("fastapi", "sqlalchemy")}
    assert version["fastapi"] < (0, 151)
    assert version["sqlalchemy"] < (2, 1)
    assert pins()["prefect"] == "3.8.8"
    assert pins()["torch"] == "2.13.0"


def test_what_is_imported_is_declared() -> None:
    """Nothing is used that only happens to be installed because another package needs it."""
    distributions = packages_distributions()
    wanted = declared("metrics", "openvino", "ray", "s3", "team", "tune")
    found = set()
    for path in [*ROOT.glob("rag/**/*.py"), *ROOT.glob("flows/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                owners = {canonical(owner) for owner in distributions.get(name.split(".")[0], [])}
                if owners - {"ragloop"} and not owners & wanted:
                    found.add(f"{path.relative_to(ROOT)} imports {name}, of {', '.join(owners)}")
    assert not found, "not in pyproject.toml:\n" + "\n".join(sorted(found))


def stage_names() -> list[str]:
    from rag.stages import STAGES

    return [stage.name for stage in STAGES]


def test_dvc_yaml_names_the_stages_in_their_order() -> None:
    assert list(yaml.safe_load(read("dvc.yaml"))["stages"]) == stage_names()


def test_the_readme_pictures_the_stages_in_their_order() -> None:
    """The first code block of the README that names a stage names all of them, in order."""
    stages = stage_names()
    for block in re.findall(r"^```.*?\n(.*?)^```", read("README.md"), re.MULTILINE | re.DOTALL):
        named = dict.fromkeys(word for word in re.findall(r"\w+", block) if word in stages)
        if len(named) > 1:
            assert list(named) == stages
            return
    pytest.fail("README.md has no code block that shows the pipeline")


def checked_in() -> Iterator[Path]:
    """Every file that git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of files")
    names = [name for name in listed.stdout.split("\0") if name]
    yield from (ROOT / name for name in names if (ROOT / name).is_file())


def test_no_file_names_a_place_on_the_machine_it_was_written_on() -> None:
    places = [
        ("", "work", ""),
        ("", "tmp", "w"),
        ("", "root", ""),
        ("..", "shared"),
        ("", "opt", ""),
    ]
    pattern = re.compile("|".join(rf"(?<![\w.]){re.escape('/'.join(place))}" for place in places))
    found = []
    for path in checked_in():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, row in enumerate(text.splitlines(), start=1):
            if match := pattern.search(row):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found, "\n" + "\n".join(found)


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"\.(?= [A-Z`]|$)", paragraph)[0]


def tour(folder: Path, depth: int = 0) -> Iterator[str]:
    """The lines of CONTRIBUTING's tree for a package: its folders first, then its modules."""

    def place(inner: Path) -> tuple[int, str]:
        return (ROOMS.index(inner.name) if inner.name in ROOMS else len(ROOMS), inner.name)

    indent = "  " * depth
    name = f"{indent}{folder.name}/"
    yield f"{name:<26}{first_sentence(folder / '__init__.py')}"
    for inner in sorted((path.parent for path in folder.glob("*/__init__.py")), key=place):
        yield from tour(inner, depth + 1)
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            name = f"{indent}  {path.name}"
            yield f"{name:<26}{first_sentence(path)}"


def test_the_tour_of_the_house_is_true() -> None:
    """Every package and module is in CONTRIBUTING's tree, as its own docstring describes it."""
    block = re.search(r"^```text\n(rag/.*?)^```", read("CONTRIBUTING.md"), re.MULTILINE | re.DOTALL)
    assert block, "CONTRIBUTING.md has no ```text block that starts with rag/"
    written = block[1].splitlines()
    real = [*tour(ROOT / "rag"), *tour(ROOT / "flows")]
    wrong = [f"remove: {row}" for row in written if row not in real]
    wrong += [
        f"add:    {row}\n        after: {real[place - 1] if place else '(first line)'}"
        for place, row in enumerate(real)
        if row not in written
    ]
    assert not wrong, "CONTRIBUTING.md, code block of the tour:\n" + "\n".join(wrong)
    assert written == real, "the lines are right, their order is not: rooms first, then modules"


def test_links_in_the_guides_lead_somewhere() -> None:
    found = []
    for guide in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]:
        text = guide.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (guide.parent / target).exists():
                found.append(f"{guide.relative_to(ROOT)}: {target}")
    assert not found, "no such file:\n" + "\n".join(found)
