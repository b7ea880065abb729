"""The page at a person's hands: keys, comments, what it keeps, what it exports, what it loads."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rag.evaluation.review_page import render_sheet
from rag.evaluation.review_sheet import Sheet
from rag.evaluation.review_verdicts import checked_rater, checked_verdicts, read_verdict_file
from tests.browser import CHROMIUM, browser_tab
from tests.evaluation.review_case import make_review

SHEET, _ = make_review(show_accepted=True)
ATTACK = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>{{data}}'
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def attacked(sheet: Sheet) -> Sheet:
    first, *others = sheet.rows
    bad = replace(first, question=ATTACK, answer_a=ATTACK, answer_b="b", passages=(ATTACK,))
    return replace(sheet, rows=(bad, *others))


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    page = render_sheet(attacked(SHEET))
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert re.findall(r"{{(?!data}})", page) == []
    outside = re.sub(r'<script id="data".*?</script>', "", page, flags=re.DOTALL)
    assert re.findall(r"""(?:src|href)\s*=|url\(|@import|https?://|innerHTML""", outside) == []


@pytest.mark.integration
@needs_browser
def test_a_rater_judges_by_keyboard_and_hands_in(tmp_path: Path) -> None:
    page = tmp_path / "sheet.html"
    page.write_text(render_sheet(SHEET), encoding="utf-8")
    with browser_tab(tmp_path) as tab:
        tab.open(page)
        question = "document.getElementById('question').textContent"
        count = "document.getElementById('count').textContent"
        disabled = "document.getElementById('export-csv').disabled"
        assert tab.value(question) == SHEET.rows[0].question
        assert (tab.value(count), tab.value(disabled)) == ("0 of 4 judged", True)

        tab.press("1", "2")
        assert tab.value(question) == SHEET.rows[2].question
        # A digit in a comment is no verdict.
        tab.press("c", "4", '"', ",", "é", "Escape", "ArrowRight", "5")
        assert tab.value(question) == SHEET.rows[3].question
        assert tab.value(count) == "2 of 4 judged"
        tab.press("4")
        assert tab.value(question) == SHEET.rows[2].question, "the next one that is left"

        tab.open(page)  # closed and opened again
        assert tab.value(count) == "3 of 4 judged"
        assert tab.value("document.getElementById('comment').value") == '4",é'
        tab.press("3")
        assert (tab.value(count), tab.value(disabled)) == ("4 of 4 judged", False)
        tab.press("ArrowLeft", "1")  # changes a mind
        assert tab.value(count) == "4 of 4 judged"
        tab.click("#rater")
        tab.press(*"Ann")

        table = tab.download("#export-csv", tmp_path / "csv")
        record = tab.download("#export-json", tmp_path / "json")
        requests = [address for address in tab.requests if not address.startswith("blob:")]
        assert requests == [page.as_uri()] * 2
        assert tab.said == []

    assert table.name == f"verdicts-{SHEET.review}-Ann.csv"
    for path in (table, record):
        file = read_verdict_file(path)
        verdicts = checked_verdicts(file, SHEET)
        assert checked_rater(None, file) == "Ann"
        assert [verdict.choice for verdict in verdicts] == ["A", "A", "tie", "both_bad"]
        assert [verdict.comment for verdict in verdicts] == ["", "", '4",é', ""]
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["question"] for row in rows] == [row.question for row in SHEET.rows]
    assert "'=SUM(A1)" in {cell for row in rows for cell in row.values()}


@pytest.mark.integration
@needs_browser
def test_nothing_in_the_sheet_is_read_as_html(tmp_path: Path) -> None:
    page = tmp_path / "sheet.html"
    page.write_text(render_sheet(attacked(SHEET)), encoding="utf-8")
    with browser_tab(tmp_path) as tab:
        tab.open(page)
        assert tab.value("document.getElementById('question').textContent") == ATTACK
        assert tab.value("document.querySelector('.passage').textContent") == ATTACK
        assert tab.value("document.images.length") == 0
        assert tab.value("document.title") == "ragloop · which answer is better?"
        tab.click('[data-choice="tie"]')
        assert tab.value("document.getElementById('count').textContent") == "1 of 4 judged"
        assert tab.requests == [page.as_uri()]
        assert tab.said == []
