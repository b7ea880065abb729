"""Fresh stores and many processes at once: nothing breaks, one works."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import TIMEOUT_SECONDS, Project
from tests.toy import make_toy_project

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def fresh(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Another toy project, without stores."""
    root = make_toy_project(tmp_path_factory.mktemp("fresh") / "toy")
    return Project(root, project.environment, project.attempts)


def at_once(project: Project, count: int, *arguments: str) -> list[tuple[int, str, float]]:
    """Exit code, errors and seconds of the same command, started many times together."""
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=project.root,
            env=dict(project.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]

    def end(process: subprocess.Popen[str]) -> tuple[int, str, float]:
        _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        return process.returncode, errors, time.monotonic() - started

    with ThreadPoolExecutor(count) as waiting:
        return list(waiting.map(end, processes))


def test_four_first_starts_at_once_make_the_stores_once(fresh: Project) -> None:
    ended = at_once(fresh, 4, "init")
    assert [code for code, _, _ in ended] == [0] * 4, [errors for _, errors, _ in ended]
    assert not [errors for _, errors, _ in ended if errors]
    assert fresh.mlflow("select count(*) from alembic_version") == [(1,)]
    assert fresh.prefect("select count(*) from alembic_version") == [(1,)]
    assert fresh.ragloop("init").out == "everything is in place\n"
    assert fresh.ragloop("releases").out == "No releases yet. `ragloop run` makes the first.\n"


def test_without_a_champion_it_says_which_command_makes_one(fresh: Project) -> None:
    done = fresh.ragloop("ask", "Who commands the Eider?")
    assert done.code == 1
    assert done.err == "error: ragloop has no champion yet; `ragloop run` makes the first one\n"


@pytest.mark.slow
def test_of_ten_runs_at_once_one_works_and_nine_are_told_at_once(fresh: Project) -> None:
    ended = sorted(at_once(fresh, 10, "run"))
    assert [code for code, _, _ in ended] == [0, *[3] * 9], [errors for _, errors, _ in ended]
    (_, _, working), *turned_away = ended
    for _, errors, seconds in turned_away:
        assert errors.startswith("error: busy: ")
        assert len(errors.splitlines()) == 1
        assert seconds < working / 2, "none waits for the one that works"
    assert [row["outcome"] for row in fresh.ledger()] == ["PROMOTE"]
    assert fresh.prefect("select state_type from flow_run") == [("COMPLETED",)]
    assert fresh.mlflow("select status from runs") == [("FINISHED",)]
    assert fresh.prefect("pragma integrity_check") == [("ok",)]
    assert fresh.mlflow("pragma integrity_check") == [("ok",)]
    assert json.loads(fresh.python("-m", "dvc", "status", "--json").stdout) == {}


@pytest.mark.slow
def test_a_store_that_was_deleted_is_made_again(fresh: Project) -> None:
    Path(fresh.root, ".ragloop", "prefect", "prefect.db").unlink()
    done = fresh.ragloop("run")
    assert done.code == 0, done.err
    assert "SKIPPED" in done.out
