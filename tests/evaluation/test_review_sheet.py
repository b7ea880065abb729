"""The sheet: nobody's name in it, both answers whole, the same bytes for the same seed."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rag.errors import DataError
from rag.evaluation.review_folder import (
    read_review,
    read_reviews,
    review_ids,
    save_review,
    save_verdicts,
)
from rag.evaluation.review_page import render_sheet
from rag.evaluation.review_sample import answer_pairs
from rag.evaluation.review_sheet import NO_ANSWER, ReviewKey, Sheet, draw_sheet, sheet_csv
from rag.evaluation.review_verdicts import Verdict
from tests.evaluation.review_case import ANSWERS, make_review, review_tables


def test_the_key_alone_says_whose_answer_it_is() -> None:
    sheet, key = make_review()
    given = {row[0]: (row[2] or NO_ANSWER, row[3] or NO_ANSWER) for row in ANSWERS}
    for row, secret in zip(sheet.rows, key.rows, strict=True):
        challenger, opponent = given[secret.question_id]
        first = challenger if secret.challenger == "A" else opponent
        assert (row.row, row.question) == (secret.row, f"{secret.question_id}?")
        assert {row.answer_a, row.answer_b} == {challenger, opponent}
        assert row.answer_a == first
    assert (key.n_questions, key.n_identical) == (6, 2)
    assert key.sheet_sha256 == sheet.sha256


@pytest.mark.parametrize("show_accepted", [False, True])
def test_no_name_and_no_gold_gets_out(show_accepted: bool) -> None:
    sheet, key = make_review(show_accepted=show_accepted)
    for text in (render_sheet(sheet), sheet_csv(sheet), json.dumps(asdict(sheet))):
        assert not [name for name in ("tuned", "champion", str(key.seed)) if f'"{name}"' in text]
        assert key.challenger.answers not in text
        assert ("北京" in text or "\\u5317" in text) is show_accepted


def test_equal_seeds_give_equal_sheets() -> None:
    sheet, key = make_review()
    assert make_review() == (sheet, key)
    assert render_sheet(make_review()[0]) == render_sheet(sheet)
    other, _ = make_review(seed=8)
    assert other.review != sheet.review
    assert other.sha256 != sheet.sha256


def test_the_table_opens_in_a_spreadsheet() -> None:
    sheet, _ = make_review()
    rows = list(csv.DictReader(io.StringIO(sheet_csv(sheet), newline="")))
    assert [row["row"] for row in rows] == ["r1", "r2", "r3", "r4"]
    assert {row["verdict"] + row["comment"] for row in rows} == {""}
    cells = {cell for row in rows for cell in row.values()}
    assert "'=SUM(A1)" in cells, "never a formula"
    assert "accepted" not in rows[0]
    shown, _ = make_review(show_accepted=True)
    assert "北京" in {row["accepted"] for row in csv.DictReader(io.StringIO(sheet_csv(shown)))}


def test_a_long_passage_is_cut_around_an_answer() -> None:
    tuned, champion = review_tables()
    rows = champion.to_pylist()
    words = " ".join(f"word{number}" for number in range(400))
    for row in rows:
        row["evidence"][0]["text"] = f"{words} The noon ferry. {words}"
    pairs = answer_pairs(tuned, champion.from_pylist(rows, schema=champion.schema))
    _, key = make_review()
    sheet, own = draw_sheet(pairs, key.challenger, key.opponent, n=None, seed=1, created="")
    row = next(
        row for row, item in zip(sheet.rows, own.rows, strict=True) if item.question_id == "q6"
    )
    passage = next(text for text in row.passages if "word" in text)
    assert "The noon ferry." in passage
    assert passage.startswith("… word")
    assert passage.endswith(" …")
    assert len(passage) <= 424
    assert set(passage.split()) - {"…"} <= set(f"{words} The noon ferry.".split())


def test_nothing_to_ask_is_said() -> None:
    tuned, _ = review_tables()
    _, key = make_review()
    with pytest.raises(DataError, match="all 6 answers are the same as those of champion"):
        draw_sheet(
            answer_pairs(tuned, tuned), key.challenger, key.opponent, n=5, seed=1, created=""
        )


def test_sheet_and_key_come_back_from_their_files(tmp_path: Path) -> None:
    sheet, key = make_review()
    assert save_review(tmp_path, sheet, key) is True
    assert save_review(tmp_path, sheet, key) is False
    review = read_review(tmp_path, key.review)
    assert (review.sheet, review.key, review.verdicts) == (sheet, key, {})
    said = [Verdict(row.row, "tie", "hm") for row in sheet.rows]
    save_verdicts(tmp_path, review, "Ann / 1", said)
    assert read_review(tmp_path, key.review).verdicts == {"Ann / 1": said}
    assert Sheet.from_json(json.loads(json.dumps(asdict(sheet)))) == sheet
    assert ReviewKey.from_json(json.loads(json.dumps(asdict(key)))) == key


def test_reviews_come_in_the_order_they_were_drawn(tmp_path: Path) -> None:
    for seed, created in ((1, "2026-03"), (2, "2026-01"), (3, "2026-02")):
        sheet, key = make_review(seed)
        save_review(tmp_path, sheet, replace(key, created=created))
    assert [review.key.seed for review in read_reviews(tmp_path)] == [2, 3, 1]
    assert read_reviews(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["sheet.json", "key.json"])
def test_a_kept_file_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    sheet, key = make_review()
    save_review(tmp_path, sheet, key)
    path = tmp_path / key.review / name
    text = path.read_text(encoding="utf-8")
    # An answer on the sheet, or a row of the key.
    path.write_text(text.replace("dawn", "dusk").replace('"row": "r1"', '"row": "r9"'))
    with pytest.raises(DataError, match="not the one that its key is for"):
        read_review(tmp_path, key.review)
    path.write_text(text[:50])
    with pytest.raises(DataError, match="cannot be read"):
        read_review(tmp_path, key.review)


@pytest.mark.parametrize("review", ["../../etc", "0123456789ab", ""])
def test_a_review_that_is_not_there(tmp_path: Path, review: str) -> None:
    sheet, key = make_review()
    save_review(tmp_path, sheet, key)
    with pytest.raises(DataError, match=f"no review '{review}' in .*there are: {key.review}"):
        read_review(tmp_path, review)
    assert review_ids(tmp_path) == [key.review]
