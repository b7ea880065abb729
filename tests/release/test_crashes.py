"""SIGKILL after every step from the index to the prune: what answers meanwhile, what is left after.

Each test is a process that kills itself and then a second one, the next start. A release is whole
at every moment: whoever asks in between gets the old one or the new one, words and passages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import releasing_project as project
from tests.releasing_project import Killed, Template, colours, in_a_process

pytestmark = pytest.mark.integration

#: In the order in which they are reached; `:2` is the second call, after that of a checkpoint.
BEFORE_THE_ALIAS = (
    "create_run",
    "publish",
    "log",
    "create_logged_model:2",
    "log_model_artifacts:2",
    "finalize_logged_model:2",
    "create_model_version",
    "update_model_version",
    "check",
    "intent",
    "compare",
    "collection",
)
AFTER_THE_ALIAS = ("alias", "commit", "settle", "close")
PRUNING = ("announce", "version", "model", "run", "index")
#: One of each kind is killed in `make test`; `make slow` has all of them.
QUICK = ("publish", "create_model_version", "intent", "alias", "commit", "version")
POINTS = [
    point if point in QUICK else pytest.param(point, marks=pytest.mark.slow)
    for point in (*BEFORE_THE_ALIAS, *AFTER_THE_ALIAS, *PRUNING)
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A project whose red release is live."""
    from tests import releasing_programs

    root = tmp_path_factory.mktemp("crashes") / "project"
    in_a_process(project.make_releasing_project, root)
    assert in_a_process(releasing_programs.release, root, "red")["version"] == "1"
    prepared = Template(root)
    prepared.keep()
    return prepared


def die(root: Path, point: str) -> dict[str, Any]:
    """A blue release that is killed at this point, and what is found after it."""
    from tests import releasing_programs

    with pytest.raises(Killed):
        in_a_process(releasing_programs.release, root, "blue", point)
    found: dict[str, Any] = in_a_process(releasing_programs.look, root)
    return found


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_one_whole_champion(template: Template, point: str) -> None:
    found = die(template.fresh(), point)
    live = "red" if point in BEFORE_THE_ALIAS else "blue"
    for asked in (found["before"], found["after"]):
        assert asked["release"] == found["champion"]
        assert colours(asked) == {live}, "passages of the release that answers, and of no other"
    assert found["colour"] == live
    assert found["loose"] == []
    assert found["again"] == [], "the second start finds nothing to do"
    promoted = [row["version"] for row in found["rows"] if row["outcome"] == "PROMOTE"]
    assert promoted == (["1"] if live == "red" else ["1", "2"])
    champions = [row["champion"] for row in found["rows"] if row["champion"]]
    assert champions[-1] == found["champion"]
    versions = [item.version for item in found["inventory"].versions]
    if point in PRUNING:
        assert versions == ["2"], "the next start ends the prune"
        assert len(found["inventory"].models) == 2
        assert len(found["inventory"].runs) == 1
        assert list(found["inventory"].indexes) == [*found["inventory"].versions[0].indexes]
    else:
        assert versions == (["1"] if live == "red" else ["1", "2"])


def test_a_run_that_was_killed_is_made_again(template: Template) -> None:
    from tests import releasing_programs

    root = template.fresh()
    die(root, "create_model_version")
    row = in_a_process(releasing_programs.release, root, "blue")
    assert (row["outcome"], row["champion_before"]) == ("PROMOTE", "1")
    found = in_a_process(releasing_programs.look, root)
    assert (found["colour"], found["said"], found["loose"]) == ("blue", [], [])


def test_a_kill_while_the_next_start_tidies_is_foreseen_too(template: Template) -> None:
    from tests import releasing_programs

    root = template.fresh()
    with pytest.raises(Killed):
        in_a_process(releasing_programs.release, root, "blue", "alias")
    with pytest.raises(Killed):
        in_a_process(releasing_programs.release, root, "green", "commit")  # while it finishes blue
    found = in_a_process(releasing_programs.look, root)
    assert (found["colour"], found["loose"]) == ("blue", [])
    rows = [row["version"] for row in found["rows"] if row["outcome"] == "PROMOTE"]
    assert rows == ["1", "2"]
