"""Links between MLflow's pages."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

from rag.release.links import compare_page, curves_page, run_links


def test_runs_are_compared_by_json_lists_of_ids() -> None:
    place, _, query = compare_page("3", ("a1", "b2")).partition("?")
    assert place == "#/compare-runs"
    found = {name: value[0] for name, value in parse_qs(query).items()}
    assert found.pop("workflowType") == "machine_learning"
    assert {name: json.loads(value) for name, value in found.items()} == {
        "runs": ["a1", "b2"],
        "experiments": ["3"],
    }


def test_curves_are_of_the_runs_that_a_filter_names() -> None:
    place, _, query = curves_page("3", ("a1", "b2")).partition("?")
    assert place == "#/experiments/3/runs"
    found = parse_qs(query)
    assert found["searchFilter"] == ["attributes.run_id IN ('a1', 'b2')"]
    assert found["compareRunsMode"] == ["CHART"]


def test_only_another_run_is_compared_with() -> None:
    assert "compare" not in run_links("3", "a1", None)
    assert "compare" not in run_links("3", "a1", "a1")
    assert "(#/compare-runs?runs=%5B%22a1%22" in run_links("3", "a1", "b2")
