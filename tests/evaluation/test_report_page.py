"""The report in headless Chromium: a real run's page, and each thing that a reader does with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from rag.artifacts import Artifacts
from rag.evaluation.report import render_report
from rag.evaluation.scoring import summarize
from tests.browsing import launched, needs_browser, opened
from tests.evaluation.reviewed import DECISION, SLICES, champion_of, labelled, reviewed_metrics
from tests.evaluation.test_report import ATTACK, attacked, with_oracle, with_shares

pytestmark = [pytest.mark.integration, needs_browser]

LIGHT, DARK = "rgb(247, 247, 245)", "rgb(15, 18, 20)"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
TOO_WIDE = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def reviewed(table: pa.Table, tmp_path: Path) -> Path:
    """A final report with everything in it."""
    table = labelled(table)
    page = render_report(
        table,
        reviewed_metrics(table),
        [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}],
        {"Seed": 13},
        champion=champion_of(table),
        decision=DECISION,
        slices=SLICES,
    )
    return written(page, tmp_path)


def written(page: str, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def browser_seconds() -> float:
    """Processor time of this process's children, Chromium's among them."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:2])
    return total


def rendered(table: pa.Table) -> str:
    metrics = summarize(table, resamples=100, confidence=0.9, seed=1)
    return render_report(table, metrics, [], {})


def test_the_report_of_a_real_run(chromium: Any, finished_toy: Path) -> None:
    path = Artifacts(finished_toy).report
    with opened(chromium, path) as browser:
        assert "Better than the untuned system" in browser.texts("h1")[0]
        every = int(browser.texts("#count")[0].split()[0])
        assert len(browser.ids()) == min(every, 25) > 10
        browser.page.fill("#search", "master stormlark")
        assert browser.texts(".row .open-row") == ["Who is the master of the Stormlark?"] or (
            browser.texts("#nothing") == ["No question matches."]
        )
        first = browser.page.eval_on_selector("#search", "box => box.value")
        assert first == "master stormlark"
        browser.page.fill("#search", "paint hull")
        shown = browser.texts(".row .open-row")
        assert all(text.startswith("Which paint does the hull of") for text in shown)
        browser.page.click("#clear")
        assert browser.texts("#count") == [f"{every} questions"]
        assert browser.page.evaluate(BACKGROUND) == LIGHT
        browser.page.click("#theme")
        browser.page.click("#theme")
        assert browser.page.evaluate(BACKGROUND) == DARK
        assert browser.said == []
        assert browser.asked == [path.as_uri()]


def test_search_filters_and_order(chromium: Any, reviewed: Path) -> None:
    with opened(chromium, reviewed) as browser:
        page = browser.page
        assert browser.ids() == ["q3", "q1", "q2", "q4"], "lost, gained, then the rest"
        assert browser.texts(".badge") == ["lost", "gained"]
        page.fill("#search", "EAGLE ship")
        assert browser.ids() == ["q1"]
        page.fill("#search", "zebra")
        assert browser.ids() == []
        assert page.is_visible("#nothing")
        page.click("#clear")
        page.select_option("#order", "asked")
        chips = {
            (chip.get_attribute("data-group"), chip.get_attribute("data-value")): chip
            for chip in page.query_selector_all("#filters button")
        }
        found: dict[Any, list[str]] = {}
        for key, chip in chips.items():
            chip.click()
            assert chip.get_attribute("aria-pressed") == "true"
            found[key] = browser.ids()
            chip.click()
        assert found == {
            ("outcome", "right"): ["q1", "q2", "q4"],
            ("outcome", "wrong"): ["q3"],
            ("outcome", "abstained"): ["q4"],
            ("change", "any"): ["q1", "q3"],
            ("change", "lost"): ["q3"],
            ("change", "gained"): ["q1"],
            ("error", "retrieval"): ["q3"],
            ("slice type", "when"): ["q2"],
            ("slice type", "where"): ["q3"],
            ("slice type", "which"): ["q1"],
            ("slice type", "who"): ["q4"],
            ("slice answerable", "no"): ["q4"],
            ("slice answerable", "yes"): ["q1", "q2", "q3"],
        }
        chips["outcome", "right"].click()
        chips["slice answerable", "yes"].click()
        assert browser.ids() == ["q1", "q2"], "both hold"
        page.click(".slice[data-value=when]")
        assert browser.ids() == ["q2"], "a slice of the table, and nothing else"
        assert browser.said == []


def test_evidence_is_marked_and_a_row_can_be_copied(chromium: Any, reviewed: Path) -> None:
    with opened(chromium, reviewed) as browser:
        page = browser.page
        page.click(".row[data-id=q1] .open-row")
        assert browser.texts(".passage mark.gold") == ["Sea Eagle"]
        assert browser.texts(".passage .holds") == ["holds the answer"]
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        page.click("text=Copy as JSON")
        row = page.evaluate("JSON.parse(window.copied)")
        assert (row["id"], row["gold"]) == ("q1", ["Sea Eagle", "the Eagle"])
        assert row["answers"]["champion"]["text"] == "a boat"
        assert row["evidence"][0]["text"] == "The new ship is the “Sea Eagle”."
        page.click("text=Copy link")
        assert page.evaluate("window.copied") == f"{reviewed.as_uri()}#q=q1"
        assert browser.texts("#said") == ["Link copied."]


def test_a_link_opens_its_question(chromium: Any, reviewed: Path) -> None:
    with opened(chromium, reviewed, address="#q=q2") as browser:
        assert browser.texts(".row.open .open-row") == ["When was it built?"]
        focused = "document.activeElement.textContent"
        assert browser.page.evaluate(focused) == "When was it built?"
        assert browser.said == []
    with opened(chromium, reviewed, address="#q=%zz") as browser:
        assert browser.texts(".row.open") == []
        assert browser.said == []


def test_the_keyboard_reaches_a_question(chromium: Any, reviewed: Path) -> None:
    with opened(chromium, reviewed) as browser:
        browser.page.focus("#search")
        for _ in range(40):
            browser.page.keyboard.press("Tab")
            if browser.page.evaluate("document.activeElement.className") == "open-row":
                break
        browser.page.keyboard.press("Enter")
        assert browser.page.get_attribute(".row[data-id=q3] .open-row", "aria-expanded") == "true"
        nameless = """[...document.querySelectorAll("button, input, select, svg, [role]")]
            .filter(e => !e.hidden && !e.textContent.trim() && !e.getAttribute("aria-label")
                && e.role !== "status" && !e.closest("[hidden]"))
            .map(e => e.outerHTML)"""
        assert browser.page.evaluate(nameless) == []
        assert browser.page.evaluate("document.querySelectorAll('h1').length") == 1


def test_the_theme_follows_the_system_and_is_remembered(chromium: Any, reviewed: Path) -> None:
    with opened(chromium, reviewed, scheme="dark") as browser:
        assert browser.page.evaluate(BACKGROUND) == DARK
        browser.page.click("#theme")
        assert browser.page.evaluate(BACKGROUND) == LIGHT
        browser.page.reload()
        assert browser.page.evaluate(BACKGROUND) == LIGHT
        assert browser.texts("#theme") == ["Light"]


def test_nothing_is_wider_than_a_phone(chromium: Any, reviewed: Path) -> None:
    with opened(chromium, reviewed, width=375) as browser:
        assert browser.page.evaluate(TOO_WIDE) <= 0
        for row in range(4):
            browser.page.locator(".row .open-row").nth(row).click()
        assert browser.page.evaluate(TOO_WIDE) <= 0


def test_nothing_in_the_data_is_read_as_html(
    chromium: Any, table: pa.Table, tmp_path: Path
) -> None:
    with opened(chromium, written(rendered(attacked(table)), tmp_path)) as browser:
        browser.page.select_option("#order", "asked")
        assert browser.ids() == ["q1", "q2", "q3", "q4"]
        assert browser.texts(".row .open-row")[0] == ATTACK
        browser.page.click(".row[data-id=q1] .open-row")
        assert browser.page.title() == "ragloop · evaluation report"
        assert browser.page.query_selector("img") is None
        assert browser.said == []


def test_shares_and_no_oracle_for_a_baseline(
    chromium: Any, table: pa.Table, tmp_path: Path
) -> None:
    path = written(rendered(with_oracle(with_shares(table).slice(0, 4))), tmp_path)
    with opened(chromium, path) as browser:
        browser.page.click(".row[data-id=q1] .open-row")
        assert browser.texts(".share") == ["82 % of the answer", "18 % of the answer"]
        assert browser.page.eval_on_selector(".share-bar i", "bar => bar.style.width") == "82%"
        assert browser.texts("#head th") == ["Question", "Tuned", "Gold", "F1"]
        assert browser.page.query_selector('#filters [data-group="change"]') is None


def test_ten_thousand_questions_stay_fast(chromium: Any, table: pa.Table, tmp_path: Path) -> None:
    """Two seconds of the browser's own time: a busy machine makes the clock run on."""
    names = [name for name in ("tuned", "zero_shot") for _ in range(10_000)]
    tuned, untuned = table.to_pylist()[0], table.to_pylist()[4]
    text = "The Sea Eagle sails at six from the northern quay. " * 14
    rows = []
    for place, name in enumerate(names):
        number = place % 10_000
        row = dict(tuned if name == "tuned" else untuned)
        row |= {"question_id": f"q{number}", "question": f"Which ship is number {number}?"}
        passage = {**row["evidence"][0], "chunk_id": f"c{number}", "text": f"{number}: {text}"}
        rows.append({**row, "evidence": [passage] * 3})
    every = pa.Table.from_pylist(rows, schema=table.schema)
    four = {**summarize(table.slice(0, 8), resamples=100, confidence=0.9, seed=1)}
    started = time.process_time()
    page = render_report(every, four, [], {})
    seconds = time.process_time() - started
    with opened(chromium, written(page, tmp_path)) as browser:
        session = browser.page.context.new_cdp_session(browser.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = browser_seconds()
        browser.page.reload()
        everything = browser_seconds() - before
        found = session.send("Performance.getMetrics")["metrics"]
        ready = next(item["value"] for item in found if item["name"] == "TaskDuration")
        print(
            f"written in {seconds:.1f} s, {len(page) / 1e6:.1f} MB; ready after {ready:.2f} s of "
            f"its thread, {everything:.2f} s of all the browser's processes"
        )
        assert browser.texts("#count") == ["10,000 questions"]
        browser.page.fill("#search", "number 9999?")
        assert browser.ids() == ["q9999"]
        assert browser.page.is_visible("text=8,000 questions are shown without their passages")
    assert ready < 2.0
