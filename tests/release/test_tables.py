"""The report's numbers as MLflow tables, by hand."""

from __future__ import annotations

from rag.release.tables import checks_table, review_tables

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


def test_checks_say_whether_they_decided() -> None:
    check = {"name": "guard", "metric": "f1", "value": -3.0, "low": -6.0, "high": 1.0}
    check |= {"threshold": -2.0, "detail": "f1 -3.0"}
    flags = [(True, True, True), (False, True, True), (False, False, True), (False, True, False)]
    checks = [
        {**check, "passed": passed, "conclusive": conclusive, "decides": decides}
        for passed, conclusive, decides in flags
    ]
    table = checks_table({"checks": checks})
    assert [row[0] for row in table["data"]] == [
        *("passed", "failed", "cannot tell", "failed (to be read)")
    ]
    assert table["data"][0][1:] == ["guard", "f1", -3.0, -6.0, 1.0, -2.0, "f1 -3.0"]
    assert len(table["columns"]) == len(table["data"][0])
