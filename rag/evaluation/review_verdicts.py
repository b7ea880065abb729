"""Verdicts as people hand them in: a filled sheet, or what the page exports; CSV or JSON.

Everything is checked before anything counts: every problem is told with its file, its place and its
reason, all of them at once. A row must belong to the sheet, stand there once, be finished, and show
the same question and answers that were handed out.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from rag.errors import DataError
from rag.evaluation.review_sheet import Sheet, SheetRow, plain_cell

Choice = Literal["A", "B", "tie", "both_bad"]
CHOICES: Final[tuple[Choice, ...]] = ("A", "B", "tie", "both_bad")
REVIEW_ID = re.compile(r"[0-9a-f]{12}")
RATER = re.compile(r"[\w][\w .@+-]{0,63}")

#: What people write in a spreadsheet, in lower case and without punctuation.
_SPELLINGS: Final[Mapping[str, Choice]] = {
    **{"1": "A", "a": "A", "a better": "A", "a is better": "A"},
    **{"2": "B", "b": "B", "b better": "B", "b is better": "B"},
    **{"3": "tie", "tie": "tie", "both good": "tie", "tie both good": "tie"},
    **{"4": "both_bad", "both bad": "both_bad"},
}
_NEEDED = ("review", "sheet", "row", "verdict")
_DELIMITERS = ",;\t"
_HINT = "Nothing was taken in. Correct the file, or export it again, and import it once more."


@dataclass(frozen=True)
class Verdict:
    """What one rater said about one row of a sheet."""

    row: str
    choice: Choice
    comment: str = ""


@dataclass(frozen=True)
class VerdictFile:
    """A file as it was read: the review it names, its rater if given, rows with their place."""

    path: Path
    review: str
    rater: str | None
    rows: tuple[tuple[str, Mapping[str, str]], ...]


def read_verdict_file(path: Path) -> VerdictFile:
    """Reads a file, not yet compared with any sheet; DataError with everything that is wrong."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}", hint=_HINT) from None
    is_json = path.suffix.lower() == ".json"
    rows = tuple(_json_rows(path, text) if is_json else _csv_rows(path, text))
    if not rows:
        raise DataError(f"{path}: holds no verdict", hint=_HINT)
    reviews = {row["review"] for _, row in rows}
    if len(reviews) > 1 or not REVIEW_ID.fullmatch(next(iter(reviews))):
        shown = ", ".join(repr(review) for review in sorted(reviews))
        raise DataError(f"{path}: expected the verdicts of one review, got {shown}", hint=_HINT)
    raters = {row.get("rater", "").strip() for _, row in rows} - {""}
    if len(raters) > 1:
        shown = ", ".join(sorted(raters))
        raise DataError(f"{path}: expected one rater a file, got {shown}", hint=_HINT)
    return VerdictFile(path, reviews.pop(), next(iter(raters), None), rows)


def checked_verdicts(file: VerdictFile, sheet: Sheet) -> list[Verdict]:
    """A verdict on every row, in the sheet's order; DataError with everything that is wrong."""
    known = {row.row: row for row in sheet.rows}
    problems: list[str] = []
    found: dict[str, Verdict] = {}
    seen: dict[str, str] = {}
    for place, row in file.rows:
        name = row["row"].strip()
        if row["sheet"] != sheet.sha256:
            problems.append(f"{place}: is not of the sheet that was handed out for {sheet.review}")
        elif name not in known:
            problems.append(f"{place}: row {name!r} is not in the sheet, which has {_span(sheet)}")
        elif name in seen:
            problems.append(f"{place}: row {name} occurs twice, first at {seen[name]}")
        else:
            seen[name] = place
            reason = _altered(row, known[name]) or _unfinished(row["verdict"])
            if reason:
                problems.append(f"{place}: row {name} {reason}")
            else:
                found[name] = Verdict(name, _choice(row["verdict"]), row.get("comment", "").strip())
    missing = [name for name in known if name not in seen]
    if missing and not problems:
        shown = ", ".join(missing[:12]) + (", ..." if len(missing) > 12 else "")
        problems.append(f"{file.path}: {len(missing)} rows have no verdict: {shown}")
    if problems:
        raise DataError(problems, hint=_HINT)
    return [found[name] for name in known]


def checked_rater(given: str | None, file: VerdictFile) -> str:
    """Who judged: what the command line says, otherwise what the file says."""
    rater = (given or file.rater or "").strip()
    if not RATER.fullmatch(rater):
        what = f"{rater!r} is no name" if rater else "does not say who judged"
        raise DataError(
            f"{file.path}: {what}; a rater's name has letters, digits, spaces and . _ - + @",
            hint="Say who it was: ragloop review import FILE --rater NAME",
        )
    return rater


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    lines = text.splitlines()
    head = lines[0] if lines else ""
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise DataError(
            f"{path}:1: expected the columns {', '.join(_NEEDED)}; "
            f"{', '.join(missing)} not found in {', '.join(columns) or 'an empty file'}",
            hint=_HINT,
        )
    reader.fieldnames = columns
    line = reader.line_num + 1
    try:
        for row in reader:
            place, line = f"{path}:{line}", reader.line_num + 1
            if None in row or None in row.values():
                raise DataError(f"{place}: expected {len(columns)} cells", hint=_HINT)
            if any(cell.strip() for cell in row.values()):
                yield place, row
    except csv.Error as error:
        raise DataError(f"{path}:{line}: {error}", hint=_HINT) from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """`{"review", "sheet", "rater", "verdicts": [{"row", "verdict", "comment"}]}`."""
    try:
        record = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {error}", hint=_HINT) from None
    verdicts = record.get("verdicts") if isinstance(record, dict) else None
    if not isinstance(verdicts, list):
        raise DataError(f"{path}: expected an object with a list 'verdicts'", hint=_HINT)
    shared = {name: record.get(name) for name in ("review", "sheet", "rater")}
    for number, verdict in enumerate(verdicts, start=1):
        place = f"{path}: verdict {number}"
        row: dict[str, Any] = {**shared, **verdict} if isinstance(verdict, dict) else {}
        given = {name: value for name, value in row.items() if value is not None}
        missing = [name for name in _NEEDED if name not in given]
        if missing or not all(isinstance(value, str) for value in given.values()):
            raise DataError(f"{place}: expected texts for {', '.join(_NEEDED)}", hint=_HINT)
        yield place, cast(dict[str, str], given)


def _altered(row: Mapping[str, str], handed_out: SheetRow) -> str:
    """What of a row is no longer as it was handed out; "" where all is."""
    shown = {
        "question": handed_out.question,
        "answer_a": handed_out.answer_a,
        "answer_b": handed_out.answer_b,
    }
    for name, text in shown.items():
        if name in row and _tidy(row[name]) not in (_tidy(text), _tidy(plain_cell(text))):
            return f"was altered: {name} is {row[name][:60]!r}, handed out was {text[:60]!r}"
    return ""


def _unfinished(verdict: str) -> str:
    if _spelling(verdict) in _SPELLINGS:
        return ""
    if not verdict.strip():
        return "has no verdict yet"
    return f"has the verdict {verdict[:40]!r}, expected one of {', '.join(CHOICES)}"


def _choice(verdict: str) -> Choice:
    return _SPELLINGS[_spelling(verdict)]


def _spelling(verdict: str) -> str:
    return " ".join(re.sub(r"[^\w]+|_", " ", verdict.lower()).split())


def _span(sheet: Sheet) -> str:
    return f"{sheet.rows[0].row} to {sheet.rows[-1].row}"


def _tidy(text: str) -> str:
    return " ".join(text.split())
