"""The report: its numbers, its safety against what the data says, and its life in a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest

from rag.errors import MetricError
from rag.evaluation.report import render_report
from rag.evaluation.report_data import question_data, rows_by_system
from rag.evaluation.scoring import summarize

HISTORY = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "dev_f1": 50.0}]
ATTACK = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>{{data}}'


def render(table: pa.Table, **facts: str) -> str:
    metrics = summarize(table, resamples=200, confidence=0.9, seed=1)
    return render_report(table, metrics, HISTORY, {"Seed": "13", **facts})


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def attacked(table: pa.Table) -> pa.Table:
    rows = table.to_pylist()
    for row in rows:
        if row["question_id"] == "q1":
            row["question"] = row["prediction"] = row["document_id"] = ATTACK
            row["answers"] = [ATTACK]
            for passage in row["evidence"]:
                passage["text"] = passage["document_id"] = ATTACK
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_the_answer_stands_at_the_top(table: pa.Table) -> None:
    page = render(table)
    metrics = summarize(table, resamples=200, confidence=0.9, seed=1)
    gain = metrics["differences"]["zero_shot"]["f1"]
    assert "F1 went from 45.0 to 75.0: <b>+30.0 points</b>, 90 % interval" in page
    expected = "Better than" if gain["low"] > 0 else "No clear difference from"
    assert f"{expected} the untuned system</h1>" in page
    row = re.search(r'<th scope="row">F1</th>(.*?)</tr>', page)
    assert row is not None
    assert re.findall(r"<b>(.*?)</b>", row[1])[:3] == ["75.0", "45.0", "+30.0"]
    assert "<dt>Seed</dt><dd>13</dd>" in page


def test_equal_inputs_give_equal_bytes(table: pa.Table) -> None:
    assert render(table) == render(table)


def test_the_page_is_whole_and_asks_for_nothing(table: pa.Table) -> None:
    page = render(table)
    assert "{{" not in page
    assert re.findall(r"""(?:src|href)\s*=|url\(|@import|https?://""", page) == []

    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "input"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in ("path", "polyline"):
                assert self.open.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None: ...

    balance = Balance()
    balance.feed(page)
    assert balance.open == []


def test_data_of_a_question_by_hand(table: pa.Table) -> None:
    data = question_data(rows_by_system(table))
    assert data["systems"] == ["tuned", "zero_shot", "closed_book"]
    first, second, third, fourth = data["questions"]
    assert [answer["outcome"] for answer in first["answers"]] == ["right", "partly", "wrong"]
    assert [answer["outcome"] for answer in fourth["answers"]] == ["right", "wrong", "wrong"]
    text = data["passages"][first["evidence"][0]["passage"]][1]
    assert [text[a:b] for a, b in first["evidence"][0]["gold"]] == ["Sea Eagle"]
    assert [evidence["relevant"] for evidence in second["evidence"]] == [False, True]
    assert third["gold"] == ["北京"]


def test_places_of_answers_are_counted_as_the_browser_counts(table: pa.Table) -> None:
    rows = table.to_pylist()
    rows[0]["evidence"][0]["text"] = "🚢 Sea Eagle"
    data = question_data(rows_by_system(pa.Table.from_pylist(rows, schema=table.schema)))
    assert data["questions"][0]["evidence"][0]["gold"] == [[3, 12]]


def with_shares(table: pa.Table) -> pa.Table:
    """The tuned system weighs its passages; it abstained from the last question."""
    rows = table.to_pylist()
    for row in rows[:4]:
        for passage, share in zip(row["evidence"], (0.82, 0.18), strict=False):
            passage["posterior"] = share
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_shares_of_an_answer_stand_beside_its_passages(table: pa.Table) -> None:
    def shares(table: pa.Table) -> list[list[float | None]]:
        questions = embedded(render(table))["questions"]
        return [[item["share"] for item in question["evidence"]] for question in questions]

    assert shares(table) == [[None, None], [None, None], [None], [None]]
    # Where the system abstained, there is no answer that a passage could have a share of.
    assert shares(with_shares(table)) == [[0.82, 0.18], [0.82, 0.18], [0.82], [None]]


def with_oracle(table: pa.Table) -> pa.Table:
    """One more system, which answers all four questions rightly."""
    rows = table.to_pylist()[:4]
    for row in rows:
        right = {"exact_match": 1.0, "f1": 1.0, "rougeL": 1.0}
        unscored = dict.fromkeys(("recall@1", "recall@5", "mrr"))
        row.update(right, **unscored, system="oracle", prediction="".join(row["answers"][:1]))
    return pa.concat_tables([table, pa.Table.from_pylist(rows, schema=table.schema)])


def test_the_oracle_stands_apart_as_an_upper_bound(table: pa.Table) -> None:
    page = render(with_oracle(table))
    heads = re.findall(r'<th scope="col">(.*?)</th>', page)
    assert heads == [
        "Percent",
        "Tuned",
        "Untuned",
        "Change on untuned",
        "Closed book",
        "Oracle (upper bound)",
    ]
    row = re.search(r'<th scope="row">F1</th>(.*?)</tr>', page)
    assert row is not None
    assert '<td class="bound"><b>100.0</b>' in row[1]
    assert page.count('class="bar system-bound"') == 6, "all but retrieval's"
    assert embedded(page)["reference"] == 1


def test_the_oracle_is_no_baseline(table: pa.Table) -> None:
    page = render(with_oracle(table.slice(0, 4)))
    assert "Tuned system</h1>" in page
    assert "Change on" not in page
    assert embedded(page)["reference"] is None
    assert embedded(page)["systems"] == ["tuned", "oracle"]


def test_nothing_in_the_data_is_read_as_html(table: pa.Table) -> None:
    page = render(attacked(table), **{ATTACK: ATTACK})
    assert "<img" not in page
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert embedded(page)["questions"][0]["question"] == ATTACK


def test_metrics_of_other_systems_are_refused(table: pa.Table) -> None:
    metrics = summarize(table, resamples=200, confidence=0.9, seed=1)
    with pytest.raises(MetricError, match="metrics of tuned, zero_shot, closed_book but"):
        render_report(table.slice(0, 8), metrics, [], {})
    with pytest.raises(MetricError, match="not asked the same questions"):
        render_report(table.slice(0, 7), metrics, [], {})


def test_one_system_and_no_training_make_a_report(table: pa.Table) -> None:
    tuned = table.slice(0, 4)
    metrics = summarize(tuned, resamples=200, confidence=0.9, seed=1)
    page = render_report(tuned, metrics, [], {})
    assert "Tuned system</h1>" in page
    assert "Nothing was trained" in page
