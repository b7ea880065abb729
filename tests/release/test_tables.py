"""The report's numbers as MLflow tables, by hand."""

from __future__ import annotations

from rag.release.tables import review_tables

INTERVAL = {"value": 60.0, "low": 50.0, "high": 70.0}
METRICS = {
    "systems": {"tuned": {"f1": INTERVAL}, "zero_shot": {"f1": {**INTERVAL, "value": 55.0}}},
    "differences": {"zero_shot": {"f1": {"value": 5.0, "low": -1.0, "high": 11.0}}},
}


def test_scores_have_intervals_and_changes() -> None:
    assert review_tables(METRICS) == {
        "scores.json": {
            "columns": [
                *("system", "metric", "value", "low", "high"),
                *("change", "change_low", "change_high"),
            ],
            "data": [
                ["tuned", "f1", 60.0, 50.0, 70.0, None, None, None],
                ["zero_shot", "f1", 55.0, 50.0, 70.0, 5.0, -1.0, 11.0],
            ],
        }
    }


def test_slices_and_errors_come_with_their_data() -> None:
    found = {"n": 12, "small": True, "systems": {"tuned": {"f1": INTERVAL}}}
    more = {"slices": {"language": {"de": found}}, "errors": {"tuned": {"right": 3, "reading": 1}}}
    tables = review_tables({**METRICS, **more})
    assert list(tables) == ["scores.json", "slices.json", "errors.json"]
    assert tables["slices.json"]["data"] == [
        ["language", "de", 12, True, "tuned", "f1", 60.0, 50.0, 70.0]
    ]
    assert tables["errors.json"]["data"] == [
        ["tuned", "right", 3, 75.0],
        ["tuned", "reading", 1, 25.0],
    ]
