"""The page at a person's hands: keys, comments, what it keeps, what it exports, what it loads."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.evaluation.review_page import render_sheet
from rag.evaluation.review_sheet import Sheet
from rag.evaluation.review_verdicts import checked_rater, checked_verdicts, read_verdict_file
from tests.browsing import launched, needs_browser, opened
from tests.evaluation.review_case import make_review

SHEET, _ = make_review(show_accepted=True)
ATTACK = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>{{data}}'


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


def written(folder: Path, sheet: Sheet) -> Path:
    page = folder / "sheet.html"
    page.write_text(render_sheet(sheet), encoding="utf-8")
    return page


def exported(page: Any, button: str, folder: Path) -> Path:
    """The file that a click on an export brings."""
    with page.expect_download() as found:
        page.click(button)
    path = folder / found.value.suggested_filename
    found.value.save_as(path)
    return path


@pytest.mark.integration
@needs_browser
def test_a_rater_judges_by_keyboard_and_hands_in(chromium: Any, tmp_path: Path) -> None:
    path = written(tmp_path, SHEET)
    with opened(chromium, path) as browser:
        page = browser.page

        def press(*keys: str) -> None:
            for key in keys:
                page.keyboard.press(key)

        def question() -> str:
            return browser.texts("#question")[0]

        def judged() -> str:
            return browser.texts("#count")[0]

        assert question() == SHEET.rows[0].question
        assert (judged(), page.is_disabled("#export-csv")) == ("0 of 4 judged", True)
        press("1", "2")
        assert question() == SHEET.rows[2].question
        # A digit in a comment is no verdict, and 5 is none anywhere.
        press("c", "4", '"', ",")
        page.keyboard.insert_text("é")
        press("Escape", "ArrowRight", "5")
        assert question() == SHEET.rows[3].question
        assert judged() == "2 of 4 judged"
        press("4")
        assert question() == SHEET.rows[2].question, "the next one that is left"

        page.reload()  # closed and opened again
        assert judged() == "3 of 4 judged"
        assert page.input_value("#comment") == '4",é'
        press("3")
        assert (judged(), page.is_disabled("#export-csv")) == ("4 of 4 judged", False)
        press("ArrowLeft", "1")  # a mind is changed
        assert judged() == "4 of 4 judged"
        page.fill("#rater", "Ann")
        files = [exported(page, f"#export-{kind}", tmp_path) for kind in ("csv", "json")]
        assert [url for url in browser.asked if not url.startswith("blob:")] == [path.as_uri()] * 2

        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#clear")  # for the next rater
        assert (judged(), page.input_value("#rater")) == ("0 of 4 judged", "")
        assert browser.said == []

    assert [file.name for file in files] == [
        f"verdicts-{SHEET.review}-Ann.csv",
        f"verdicts-{SHEET.review}-Ann.json",
    ]
    for file in map(read_verdict_file, files):
        verdicts = checked_verdicts(file, SHEET)
        assert checked_rater(None, file) == "Ann"
        assert [verdict.choice for verdict in verdicts] == ["A", "A", "tie", "both_bad"]
        assert [verdict.comment for verdict in verdicts] == ["", "", '4",é', ""]
    with files[0].open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["question"] for row in rows] == [row.question for row in SHEET.rows]
    assert "'=SUM(A1)" in {cell for row in rows for cell in row.values()}


@pytest.mark.integration
@needs_browser
def test_nothing_in_the_sheet_is_read_as_html(chromium: Any, tmp_path: Path) -> None:
    path = written(tmp_path, attacked(SHEET))
    with opened(chromium, path) as browser:
        assert browser.texts("#question") == [ATTACK]
        assert browser.texts(".passage") == [ATTACK]
        assert browser.page.title() == "ragloop · which answer is better?"
        assert browser.page.locator("img").count() == 0
        browser.page.click('[data-choice="tie"]')
        assert browser.texts("#count") == ["1 of 4 judged"]
        assert (browser.asked, browser.said) == ([path.as_uri()], [])
