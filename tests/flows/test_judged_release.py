"""A release from the comparison to a person's word, on a real registry and with real models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag.release.attribution import OLD_INDEX, OLD_MODEL
from tests import releasing_project as project
from tests.releasing_project import Template, in_a_process

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose red release is live."""
    from tests import releasing_programs

    root = tmp_path_factory.mktemp("judged") / "project"
    project.make_releasing_project(root)
    in_a_process(releasing_programs.release, root, "red")
    return root


@pytest.fixture(scope="module")
def pending(root: Path) -> dict[str, Any]:
    """A blue release that has passed and waits."""
    from tests import judging_programs

    found: dict[str, Any] = in_a_process(judging_programs.judged, root, "blue", "manual")
    return found


@pytest.fixture(scope="module")
def template(root: Path, pending: dict[str, Any]) -> Template:
    assert pending["row"]["version"] == "2"
    kept = Template(root)
    kept.keep()
    return kept


def test_a_release_that_passed_waits_for_a_person(pending: dict[str, Any]) -> None:
    row = pending["row"]
    assert row["decision"]["outcome"] == "PROMOTE"
    assert (row["outcome"], row["champion"], row["champion_before"]) == ("PENDING", "1", "1")
    assert (pending["champion"], pending["challenger"]) == ("1", "2")
    assert pending["head"] == f"{row['sequence']}:{row['hash']}"
    assert row["libraries"]["torch"]
    assert "@" in row["actor"]


def test_the_mixed_arms_exchange_models_and_passages(pending: dict[str, Any]) -> None:
    """The evidence shows whose passages were read."""
    assert pending["mixed"] == {OLD_MODEL: 8, OLD_INDEX: 8}
    assert pending["evidence"] == {"champion": ["red"], OLD_MODEL: ["blue"], OLD_INDEX: ["red"]}
    effects = pending["row"]["decision"]["attribution"]["f1"]
    parts = effects["model"]["value"] + effects["index"]["value"]
    assert parts == pytest.approx(effects["total"]["value"], abs=1e-3)


def test_both_systems_were_timed_on_the_same_questions(pending: dict[str, Any]) -> None:
    cost = pending["cost"]
    assert len(cost["champion_seconds"]) == len(cost["challenger_seconds"]) == 3
    assert all(0.0 < seconds < 30.0 for seconds in cost["challenger_seconds"])
    assert 50e6 < cost["champion_bytes"] < 20e9


def test_a_person_makes_it_champion_and_the_ledger_says_who(template: Template) -> None:
    from tests import judging_programs

    root = template.fresh()
    done = in_a_process(judging_programs.approve, root, "2")
    row = done["row"]
    assert (done["champion"], done["challenger"]) == ("2", None)
    assert (row["outcome"], row["actor"], row["reason"]) == (
        "PROMOTE",
        "Ada",
        "it was tried by hand",
    )
    assert row["decides"] == done["rows"][-2]["sequence"]
    told = in_a_process(judging_programs.told, root, row["time"], row["decides"])
    assert (told["at"]["version"], told["at"]["row"]) == ("2", row["sequence"])
    assert told["verify"] == {"rows": row["sequence"], "mirrored": row["sequence"]}
    assert told["replay"]["same"], told["replay"]["differences"]
    with pytest.raises(AssertionError, match="version 2 is the champion already"):
        in_a_process(judging_programs.approve, root, "2")


def test_what_the_gate_has_not_passed_needs_an_override(template: Template) -> None:
    from tests import judging_programs

    root = template.fresh()
    declined = in_a_process(judging_programs.approve, root, "2", "too odd", "decline")
    assert (declined["champion"], declined["row"]["outcome"]) == ("1", "DECLINED")
    in_a_process(judging_programs.approve, root, "2")
    with pytest.raises(AssertionError, match=r"the gate did not pass|was champion before"):
        in_a_process(judging_programs.approve, root, "1")
    back = in_a_process(judging_programs.approve, root, "1", "it was right", "override")
    assert (back["champion"], back["row"]["override"]) == ("1", True)


def test_without_a_reason_nothing_happens(template: Template) -> None:
    from tests import judging_programs

    root = template.fresh()
    with pytest.raises(AssertionError, match="--why is empty"):
        in_a_process(judging_programs.approve, root, "2", " ")


def test_a_dry_run_is_recorded_and_nothing_else(template: Template) -> None:
    from tests import judging_programs

    found = in_a_process(judging_programs.judged, template.fresh(), "green", "dry_run")
    row = found["row"]
    assert (row["outcome"], row["version"]) == ("DRY_RUN", None)
    assert row["decision"]["outcome"] == "PROMOTE"
    assert (found["champion"], found["challenger"]) == ("1", "2")
    assert found["rows"][-1] == row
