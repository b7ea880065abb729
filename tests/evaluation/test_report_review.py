"""The final report: the champion, the gate's decision, and blocks that come with their data."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa
import pytest

from rag.evaluation.report import render_report
from rag.evaluation.report_data import (
    EVIDENCE_QUESTIONS,
    change,
    confidence,
    question_data,
    review_order,
    rows_by_system,
)
from rag.evaluation.report_sections import certainty
from rag.evaluation.report_words import p_value, signed
from rag.evaluation.scoring import summarize
from tests.evaluation.reviewed import DECISION, SLICES, champion_of, labelled, reviewed_metrics


def render(table: pa.Table, **more: Any) -> str:
    table = labelled(table)
    return render_report(
        table,
        reviewed_metrics(table),
        [],
        {"Seed": 13},
        champion=champion_of(table),
        slices=SLICES,
        **more,
    )


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).strip()


def section(page: str, name: str) -> str:
    found = re.search(rf'<section aria-labelledby="{name}-title">(.*?)</section>', page, re.S)
    return found[1] if found else ""


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_champion_is_what_is_compared_with(table: pa.Table) -> None:
    page = render(table)
    assert data_of(page)["systems"] == ["tuned", "champion", "zero_shot", "closed_book"]
    heads = re.findall(r'<th scope="col">(.*?)</th>', section(page, "comparison"))
    assert heads == [
        *("Percent", "Tuned", "Champion", "Change on champion", "Untuned", "Closed book")
    ]
    # Tuned is right on q1, q2, q4 and the champion on q2, q3, q4.
    row = re.search(r'<th scope="row">Exact match</th>(.*?)</tr>', page)
    assert row is not None
    assert re.findall(r"<b>(.*?)</b>", row[1])[:3] == ["75.0", "75.0", "0.0"]
    assert "p &lt; 0.001" in row[1]
    assert "the champion</h1>" in page


def test_the_gate_has_the_first_word(table: pa.Table) -> None:
    page = render(table, decision=DECISION)
    assert re.search(r'<h1 class="verdict down">Rejected: ', page)
    gate = text_of(section(page, "gate"))
    assert "f1 -10.0 points against champion: &lt;not&gt; enough" in gate
    assert "Exact match guard against champion −10.0 −20.0 to 0.0 −2.0 failed" in gate
    assert section(render(table), "gate") == ""


def test_slices_stand_by_their_change_and_small_ones_last(table: pa.Table) -> None:
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", section(render(table), "slices"))
    assert [text_of(row).split(" F1")[0] for row in rows] == [
        # The tuned system's F1, the champion's, the change, the tuned system's exact match.
        "type when 40 20.0 10.0 to 30.0 50.0 40.0 to 60.0 "
        "−30.0 −39.0 to −20.0 20.0 10.0 to 30.0 39",
        "type which 50 60.0 50.0 to 70.0 50.0 40.0 to 60.0 "
        "+10.0 +1.0 to +20.0 60.0 50.0 to 70.0 49",
        "type where too few to judge 3 0.0 -10.0 to 10.0 100.0 90.0 to 110.0 "
        "−100.0 −109.0 to −90.0 0.0 -10.0 to 10.0 2 1",
    ]
    # Coloured where the interval is on one side of zero, and never for a small slice.
    assert [re.search(r'class="change (\w+)"', row)[1] for row in rows] == [  # type: ignore[index]
        *("down", "up", "same")
    ]


def test_a_block_comes_with_its_data(table: pa.Table) -> None:
    page = text_of(render(table))
    assert "difference below 4.2 points of F1 will often go unseen" in page
    assert "Where answers went wrong" in page
    assert "Risk by coverage" in page
    assert "AURC 12.5" in page
    assert "Scoring rules v1-abc" in page
    assert "bleu signature tok:13a" in page
    plain = summarize(table, resamples=200, confidence=0.9, seed=1)
    bare = text_of(render_report(table, plain, [], {}).split('<script id="data"')[0])
    for title in ("went wrong", "AURC 12", "often go unseen", "How sure it is"):
        assert title not in bare


def test_a_question_knows_its_label_its_slices_and_what_became_of_it(table: pa.Table) -> None:
    first, second, third, fourth = data_of(render(table))["questions"]
    assert [item["change"] for item in (first, second, third, fourth)] == [
        *("gained", "same", "lost", "same")
    ]
    assert third["error"] == "retrieval"
    assert third["slices"] == {"type": "where", "answerable": "yes"}
    assert first["confidence"] == 0.6065  # exp(-0.5)
    plain = question_data(rows_by_system(table))["questions"][0]
    assert (plain["error"], plain["slices"]) == (None, {"language": "en", "kind": "1"})


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((1.0, "a"), (0.0, "b"), "gained"),
        ((0.0, "a"), (1.0, "b"), "lost"),
        ((0.0, "a"), (0.0, "b"), "changed"),
        ((1.0, "a"), (1.0, "a"), "same"),
    ],
)
def test_what_became_of_an_answer(
    ours: tuple[float, str], theirs: tuple[float, str], expected: str
) -> None:
    mine, other = ({"exact_match": right, "prediction": text} for right, text in (ours, theirs))
    assert change(mine, other) == expected
    assert change(mine, None) == "same"


def test_lost_answers_are_looked_at_first(table: pa.Table) -> None:
    systems = rows_by_system(pa.concat_tables([table, champion_of(table)]))
    assert list(systems)[:2] == ["tuned", "champion"]
    # q3 lost, q1 gained; q2 and q4 are the same and both right.
    assert review_order(systems["tuned"], systems["champion"]) == [2, 0, 1, 3]
    # By rising F1: q3 is the only wrong one.
    assert review_order(systems["tuned"], None) == [2, 0, 1, 3]


def test_evidence_beyond_the_limit_is_left_out(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EVIDENCE_QUESTIONS >= 1000
    monkeypatch.setattr("rag.evaluation.report_data.EVIDENCE_QUESTIONS", 1)
    data = question_data(rows_by_system(table))
    # q4: right now and wrong before, so gained, as is q1; the first of them keeps its evidence.
    kept = [item["id"] for item in data["questions"] if item["evidence"]]
    assert kept == ["q1"]
    assert data["without_evidence"] == 3
    assert len(data["passages"]) == 2


def test_confidence_is_the_probability_of_the_answer() -> None:
    assert confidence({"score": 0.0}) == 1.0
    assert confidence({"score": -0.6931}) == 0.5
    assert confidence({"score": 2.0}) is None, "no log probability"


def test_calibration_by_hand(table: pa.Table) -> None:
    """20 answers, half of them sure (e^0 = 1) and right, half unsure (e^-0.6931 = .5) and wrong."""
    row = table.to_pylist()[0]
    rows = [{**row, "score": 0.0, "exact_match": 1.0}] * 10
    rows += [{**row, "score": -0.6931, "exact_match": 0.0}] * 10
    shown = certainty({}, {"tuned": rows})
    said = re.findall(r'title="([^"]*)"', shown)
    assert said == [
        "10 answers: confidence 50 %, right 0 %",
        "10 answers: confidence 100 %, right 100 %",
    ]
    assert re.findall(r"left:([\d.]+)%;top:([\d.]+)%", shown) == [
        ("50.00", "100.00"),
        ("100.00", "0.00"),
    ]
    assert certainty({}, {"tuned": rows[:19]}) == "", "too few for two groups"


def test_numbers_in_words() -> None:
    assert [signed(value) for value in (3.44, -1.25, -0.01)] == ["+3.4", "−1.2", "0.0"]
    assert [p_value(value) for value in (0.5, 0.0131, 0.0002)] == [
        *("p = 0.500", "p = 0.013", "p < 0.001")
    ]
