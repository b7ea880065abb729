"""Rollback and prune as a user has them: the command line, a real index, MLflow's own `gc`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import releasing_project as project
from tests.releasing_project import Template, colours, in_a_process

pytestmark = pytest.mark.integration

LIMIT_SECONDS = 5.0


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Red was champion, then blue; green was kept back. Nothing is pruned."""
    from tests import releasing_programs as programs

    root = tmp_path_factory.mktemp("rollback") / "project"
    in_a_process(project.make_releasing_project, root, 3, 2)
    in_a_process(programs.release, root, "red")
    in_a_process(programs.release, root, "blue")
    row = in_a_process(programs.release, root, "green", "", False)
    assert (row["outcome"], row["version"], row["champion"]) == ("REJECT", "3", "2")
    prepared = Template(root)
    prepared.keep()
    return prepared


def test_goes_back_in_seconds_to_the_same_answers(template: Template) -> None:
    from tests import releasing_commands as commands

    found = in_a_process(commands.roll_back_and_forth, template.fresh())
    print(f"rollback took {found['seconds']:.2f} s")
    assert found["seconds"] < LIMIT_SECONDS
    assert found["back"] == found["first"], "the earlier release answers as it did"
    assert colours(found["back"]) == {"red"}
    assert found["forth"] == found["second"], "a rollback of a rollback takes it back"
    assert colours(found["forth"]) == {"blue"}
    rows = [row for row in found["rows"] if row["outcome"] == "ROLLBACK"]
    assert [(row["champion_before"], row["champion"]) for row in rows] == [("2", "1"), ("1", "2")]
    assert rows[0]["reason"] == "answers were too short"
    assert "@" in rows[0]["actor"]


REFUSALS = {
    ("index", "1"): "version 1 cannot answer: index .* is missing or incomplete; to build",
    ("files", "1"): "version 1 cannot answer: data/.* missing from its files",
    ("bundle", "1"): "the files of version 1 are gone",
    ("", "2"): "version 2 is the champion already",
    ("", "3"): "version 3 was never champion, so this is no rollback",
    ("lock", "1"): "busy: a test .* is at work",
    ("version", "1"): "ragloop has no version '1'",
}


def test_refuses_with_the_reason_and_changes_nothing(template: Template) -> None:
    from tests import releasing_commands as commands

    said = in_a_process(commands.roll_back_damaged, template.fresh(), list(REFUSALS))
    for found, expected in zip(said, REFUSALS.values(), strict=True):
        assert re.search(expected, found), found


def test_an_index_that_is_gone_is_built_again_on_demand(template: Template) -> None:
    from tests import releasing_commands as commands

    found = in_a_process(commands.roll_back_rebuilding, template.fresh())
    assert (found["release"], colours(found)) == ("1", {"red"})


def test_a_prune_removes_what_its_dry_run_lists_and_gc_breaks_nothing(template: Template) -> None:
    from tests import releasing_commands as commands

    found = in_a_process(commands.prune_and_collect, template.fresh())
    assert found["unchanged"], "a dry run removes nothing"
    assert found["removed"] == found["listed"]
    kinds = [item["kind"] for item in found["removed"]]
    # Green waits as challenger. Of red goes all; the index of the working tree is green's.
    assert kinds == ["version", "model", "model", "run", "index"]
    assert found["removed"][0]["reason"] == "none of the last 1 champions"
    assert found["freed"] == sum(item["bytes"] or 0 for item in found["removed"])
    assert found["left"] == ["2", "3"]
    assert found["loose"] == []
    assert found["collected"] == 3, "one run and its two models"
    assert found["after"] == found["before"], "the champion answers as it did"
    assert found["served"]["evidence"][0]["document_id"].startswith("blue")
    assert found["again"] == []


def test_the_previous_champion_is_the_one_before_the_last_switch() -> None:
    from rag.release.rollback import previous_champion

    rows = [{"champion": version} for version in ("1", "2", None, "2", "3")]
    assert previous_champion(rows, "3") == "2"
    assert previous_champion([*rows, {"champion": "2"}], "2") == "3"
    assert previous_champion(rows[:1], "1") is None


def test_two_versions_at_once_are_wrong_usage(tmp_path: Path) -> None:
    from flows.release_cli import rollback
    from rag.errors import InputError

    with pytest.raises(InputError, match="two versions to roll back to: 1 and --to 2"):
        rollback("1", to="2")
