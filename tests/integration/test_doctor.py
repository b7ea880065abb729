"""The doctor finds every planted fault, and nothing where nothing is wrong; it changes no file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.doctor import examine
from tests.doctor_faults import FAULTS, Fault, planted
from tests.doctor_project import (
    clean_environment,
    content,
    copy_of,
    follow_remedy,
    make_healthy_project,
    restore,
    site_at,
)
from tests.releasing_project import in_a_process

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A healthy installation, and the copy that it is restored from."""
    root = make_healthy_project(tmp_path_factory.mktemp("doctor") / "project")
    kept = root.with_name("kept")
    copy_of(root, kept)
    return root, kept


@pytest.fixture
def root(built: tuple[Path, Path]) -> Path:
    """The installation as it was."""
    root, kept = built
    restore(kept, root)
    return root


def test_a_healthy_installation_is_called_healthy_and_left_as_it_is(root: Path) -> None:
    before = content(root)
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "doctor", "--json", "--strict"],
        cwd=root,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    findings = json.loads(done.stdout)
    assert [item for item in findings if item["level"] != "ok"] == []
    assert done.returncode == 0, done.stderr
    assert content(root) == before


def test_there_are_at_least_twenty_faults_and_no_two_alike() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, root: Path) -> None:
    with planted(fault, root):
        before = content(root)
        findings = {item.name: item for item in examine(site_at(root))}
        assert content(root) == before
    found = findings[fault.check]
    assert found.level == fault.level, found
    assert fault.words in found.message
    assert found.remedy
    others = {name for name, item in findings.items() if item.level != "ok"} - {fault.check}
    assert others <= set(fault.also), [findings[name] for name in others]


#: Faults whose remedy is one command of ours that needs neither network nor training.
MENDED = (
    "the champion was deleted in MLflow",
    "the alias was moved by hand",
    "the alias was deleted by hand",
    "the champion's index is gone",
    "an index of no release",
)


@pytest.mark.parametrize("name", MENDED)
def test_the_remedy_mends_it(name: str, root: Path) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)
    with planted(fault, root):
        remedy = examine(site_at(root), [fault.check])[0].remedy
        in_a_process(follow_remedy, root, remedy)
        again = examine(site_at(root), [fault.check])[0]
    assert again.level == "ok", again
