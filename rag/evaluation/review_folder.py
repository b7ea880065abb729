"""Where a review is kept: a folder with its key, its sheet, and a file of verdicts for each rater.

The sheet goes to raters; the folder stays here, since its key says who is who. A sheet or a key
that was changed after it was handed out is refused: verdicts on it would be about something else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rag.errors import DataError
from rag.evaluation.review_sheet import ReviewKey, Sheet
from rag.evaluation.review_verdicts import REVIEW_ID, Verdict

KEY = "key.json"
_SHEET = "sheet.json"
_VERDICTS = "verdicts"


@dataclass(frozen=True)
class Review:
    """A review as it is kept; `verdicts` are those taken in, by rater, in the sheet's order."""

    key: ReviewKey
    sheet: Sheet
    verdicts: Mapping[str, Sequence[Verdict]]


def save_review(folder: Path, sheet: Sheet, key: ReviewKey) -> bool:
    """Writes a new review below `folder`; False, and nothing is written, where it is there."""
    own = folder / key.review
    if (own / KEY).exists():
        read_review(folder, key.review)
        return False
    own.mkdir(parents=True, exist_ok=True)
    _write(own / _SHEET, asdict(sheet))
    _write(own / KEY, asdict(key))  # last: a review without its key is none
    return True


def read_review(folder: Path, review: str) -> Review:
    """The review of this id; DataError where there is none or its files do not agree."""
    own = folder / review
    if not REVIEW_ID.fullmatch(review) or not (own / KEY).exists():
        known = ", ".join(review_ids(folder)) or "none yet: ragloop review sample makes one"
        raise DataError(f"no review {review!r} in {folder}; there are: {known}")
    try:
        key = ReviewKey.from_json(_read(own / KEY))
        sheet = Sheet.from_json(_read(own / _SHEET))
        verdicts = {
            record["rater"]: [Verdict(**row) for row in record["verdicts"]]
            for record in map(_read, sorted((own / _VERDICTS).glob("*.json")))
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{own}: the review cannot be read: {error}; {_WAY_OUT}") from None
    names = [row.row for row in key.rows]
    if sheet.sha256 != key.sheet_sha256 or [row.row for row in sheet.rows] != names:
        raise DataError(f"{own}: the sheet is not the one that its key is for; {_WAY_OUT}")
    for rater, given in verdicts.items():
        if [verdict.row for verdict in given] != names:
            raise DataError(f"{own}: the verdicts of {rater} are not those of its rows; {_WAY_OUT}")
    return Review(key, sheet, verdicts)


def review_ids(folder: Path) -> list[str]:
    """Every review, in the order of their ids."""
    return sorted(path.parent.name for path in folder.glob(f"*/{KEY}"))


def read_reviews(folder: Path) -> list[Review]:
    """Every review, the oldest first."""
    reviews = [read_review(folder, review) for review in review_ids(folder)]
    return sorted(reviews, key=lambda review: (review.key.created, review.key.review))


def save_verdicts(folder: Path, review: Review, rater: str, verdicts: Sequence[Verdict]) -> None:
    """Keeps what one rater said, in the place of what the rater said before."""
    own = folder / review.key.review / _VERDICTS
    own.mkdir(parents=True, exist_ok=True)
    record = {"rater": rater, "verdicts": [asdict(verdict) for verdict in verdicts]}
    _write(own / f"{quote(rater, safe=' ')}.json", record)


def _read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _write(path: Path, record: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    text = json.dumps(record, ensure_ascii=False, indent=1, sort_keys=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.new")
    aside.write_text(f"{text}\n", encoding="utf-8")
    aside.replace(path)


_WAY_OUT = "restore it from a backup, or draw another: ragloop review sample"
