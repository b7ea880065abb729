"""Verdicts are taken whole or not at all, and every problem says where it is."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from rag.errors import DataError
from rag.evaluation.review_sheet import sheet_csv
from rag.evaluation.review_verdicts import (
    Verdict,
    VerdictFile,
    checked_rater,
    checked_verdicts,
    read_verdict_file,
)
from tests.evaluation.review_case import make_review

SHEET, KEY = make_review()
GIVEN = ("A", "b is better", "Both good", "4")
EXPECTED = ["A", "B", "tie", "both_bad"]


def filled(verdicts: tuple[str, ...] = GIVEN, **changes: str) -> list[dict[str, str]]:
    """The rows of a sheet as a rater leaves them; `changes` go into the second row."""
    rows = list(csv.DictReader(io.StringIO(sheet_csv(SHEET), newline="")))
    for row, verdict in zip(rows, verdicts, strict=True):
        row["verdict"] = verdict
    rows[1] |= changes
    return rows


def write_csv(path: Path, rows: list[dict[str, str]], **how: Any) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **how)
        writer.writeheader()
        writer.writerows(rows)
    return path


def take(path: Path) -> list[Verdict]:
    return checked_verdicts(read_verdict_file(path), SHEET)


def problems(path: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        take(path)
    return [problem.replace(str(path), "f") for problem in caught.value.problems]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_filled_sheet(tmp_path: Path, delimiter: str) -> None:
    path = write_csv(tmp_path / "s.csv", filled(comment=" a, b;\nc "), delimiter=delimiter)
    taken = take(path)
    assert [verdict.choice for verdict in taken] == EXPECTED
    assert [verdict.comment for verdict in taken] == ["", "a, b;\nc", "", ""]
    assert [verdict.row for verdict in taken] == ["r1", "r2", "r3", "r4"]


def test_rows_in_another_order_and_fewer_columns(tmp_path: Path) -> None:
    rows = [
        {name: row[name] for name in ("row", "verdict", "sheet", "review")}
        for row in filled()[::-1]
    ]
    assert [verdict.choice for verdict in take(write_csv(tmp_path / "s.csv", rows))] == EXPECTED


def exported(**changes: Any) -> dict[str, Any]:
    verdicts = [
        {"row": row.row, "verdict": verdict, "comment": ""}
        for row, verdict in zip(SHEET.rows, EXPECTED, strict=True)
    ]
    whole = {"review": SHEET.review, "sheet": SHEET.sha256, "rater": "Ann", "verdicts": verdicts}
    return {**whole, **changes}


def test_an_exported_file(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps(exported()), encoding="utf-8")
    file = read_verdict_file(path)
    assert (file.review, file.rater) == (SHEET.review, "Ann")
    assert [verdict.choice for verdict in checked_verdicts(file, SHEET)] == EXPECTED


def test_every_bad_row_is_told_with_its_line(tmp_path: Path) -> None:
    """The second row is two lines long, so what follows stands one further down."""
    rows = [{**row, "passages": ""} for row in filled(comment="one\ntwo", verdict="")]
    rows[0]["answer_a"] += "!"
    rows[2]["row"] = "r7"
    rows[3]["verdict"] = "left"
    rows.append({**rows[0]})
    altered = SHEET.rows[0].answer_a
    assert problems(write_csv(tmp_path / "s.csv", rows)) == [
        f"f:2: row r1 was altered: answer_a is '{altered}!', handed out was '{altered}'",
        "f:3: row r2 has no verdict yet",
        "f:5: row 'r7' is not in the sheet, which has r1 to r4",
        "f:6: row r4 has the verdict 'left', expected one of A, B, tie, both_bad",
        "f:7: row r1 occurs twice, first at f:2",
    ]


def test_rows_that_are_not_there_are_unfinished(tmp_path: Path) -> None:
    assert problems(write_csv(tmp_path / "s.csv", filled()[:2])) == [
        "f: 2 rows have no verdict: r3, r4"
    ]


def test_verdicts_on_another_sheet_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps(exported(sheet="0" * 64)), encoding="utf-8")
    assert problems(path) == [
        f"f: verdict {number}: is not of the sheet that was handed out for {SHEET.review}"
        for number in range(1, 5)
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "f:1: expected the columns review, sheet, row, verdict; review, sheet, row, verdict"),
        ("review,sheet,row,verdict\n", "f: holds no verdict"),
        ("review,sheet,row,verdict\n../..,1,r1,A\n", "f: expected the verdicts of one review"),
        ("review,sheet,row,verdict\na,b,c\n", "f:2: expected 4 cells"),
        ("review,sheet,row,verdict\na,b,c,d,e\n", "f:2: expected 4 cells"),
        ('review,sheet,row,verdict\na,b,c,"d\n', "f:2: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_table_of_verdicts(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text, encoding="utf-8")
    (found,) = problems(path)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ("[]", "f: expected an object with a list 'verdicts'"),
        ("{", "f: is not JSON"),
        (json.dumps(exported(verdicts=[3])), "f: verdict 1: expected texts for review, sheet"),
        (json.dumps(exported(review=None)), "f: verdict 1: expected texts for review, sheet"),
        (json.dumps(exported(verdicts=[])), "f: holds no verdict"),
    ],
)
def test_a_file_that_is_no_export(tmp_path: Path, record: str, problem: str) -> None:
    path = tmp_path / "v.json"
    path.write_text(record, encoding="utf-8")
    (found,) = problems(path)
    assert found.startswith(problem)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_verdict_file(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        read_verdict_file(tmp_path / "latin.csv")


def test_who_judged() -> None:
    def file(rater: str | None) -> VerdictFile:
        return VerdictFile(Path("f"), SHEET.review, rater, ())

    assert checked_rater(None, file("Ann")) == "Ann"
    assert checked_rater("ben@example.org", file("Ann")) == "ben@example.org"
    assert checked_rater("Zoë Ng", file(None)) == "Zoë Ng"
    with pytest.raises(DataError, match="does not say who judged"):
        checked_rater(None, file(None))
    with pytest.raises(DataError, match=r"'\.\./x' is no name"):
        checked_rater("../x", file(None))


def test_one_rater_a_file(tmp_path: Path) -> None:
    rows = [{**row, "rater": name} for row, name in zip(filled(), "aabb", strict=True)]
    with pytest.raises(DataError, match="expected one rater a file, got a, b"):
        read_verdict_file(write_csv(tmp_path / "s.csv", rows))
