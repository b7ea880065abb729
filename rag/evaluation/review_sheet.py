"""The sheet that people judge: questions with two answers, A and B, and nobody's name.

The sheet is what raters see, its key who is who: they are kept apart, and the key holds the
SHA-256 of the sheet, so that verdicts about another sheet, or about an altered one, are refused.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rag.errors import DataError
from rag.evaluation.review_sample import AnswerPair, Conditions, Side, sample_pairs, shuffled_sides
from rag.records import sorted_json

NO_ANSWER = "(no answer)"
#: Columns that a rater fills; the others say what is judged.
FILLED = ("verdict", "comment")

_ID_LENGTH = 12
_PASSAGES = 3
_PASSAGE_CHARACTERS = 420
#: What a spreadsheet takes for the start of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class SheetRow:
    """One question as a rater sees it; `accepted` is empty unless the sheet shows it."""

    row: str
    question: str
    passages: tuple[str, ...]
    accepted: tuple[str, ...]
    answer_a: str
    answer_b: str


@dataclass(frozen=True)
class Sheet:
    """All that a rater sees."""

    review: str
    rows: tuple[SheetRow, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(sorted_json(asdict(self)).encode()).hexdigest()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Sheet:
        """The sheet that `asdict` wrote as JSON."""
        rows = tuple(
            SheetRow(
                **{**row, "passages": tuple(row["passages"]), "accepted": tuple(row["accepted"])}
            )
            for row in record["rows"]
        )
        return cls(record["review"], rows)


@dataclass(frozen=True)
class System:
    """One side of a review: its name, its release if it has one, and the hash of its answers."""

    name: str
    release: str | None
    answers: str


@dataclass(frozen=True)
class KeyRow:
    """Which question a row is about, and which side is the challenger's."""

    row: str
    question_id: str
    document_id: str | None
    challenger: Side


@dataclass(frozen=True)
class ReviewKey:
    """Who is who in a sheet, and what it was drawn from.

    `n_questions` counts the test questions in `where`, `n_identical` those of them that both
    systems answered alike. `created` is UTC, `run_id` the MLflow run of the challenger.
    """

    review: str
    sheet_sha256: str
    seed: int
    created: str
    challenger: System
    opponent: System
    n_questions: int
    n_identical: int
    rows: tuple[KeyRow, ...]
    where: Conditions = field(default_factory=dict)
    run_id: str | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ReviewKey:
        """The key that `asdict` wrote as JSON."""
        return cls(
            **{
                **record,
                "challenger": System(**record["challenger"]),
                "opponent": System(**record["opponent"]),
                "rows": tuple(KeyRow(**row) for row in record["rows"]),
            }
        )


def draw_sheet(
    pairs: Sequence[AnswerPair],
    challenger: System,
    opponent: System,
    *,
    n: int | None,
    seed: int,
    created: str,
    where: Conditions | None = None,
    show_accepted: bool = False,
    run_id: str | None = None,
) -> tuple[Sheet, ReviewKey]:
    """A sheet of n pairs that differ and its key; `pairs` are all those in `where`.

    DataError where every answer is the same: there is nothing to ask.
    """
    drawn = sample_pairs(pairs, n, seed)
    if not drawn:
        raise DataError(
            f"all {len(pairs)} answers are the same as those of {opponent.name}: "
            "there is nothing to judge"
        )
    sides = shuffled_sides(len(drawn), seed)
    drawn_by = [seed, n, show_accepted, dict(where or {})]
    made_from = [asdict(challenger), asdict(opponent), run_id, *drawn_by]
    review = hashlib.sha256(sorted_json(made_from).encode()).hexdigest()[:_ID_LENGTH]
    digits = len(str(len(drawn)))
    names = [f"r{place:0{digits}}" for place in range(1, len(drawn) + 1)]
    rows = [
        _sheet_row(name, pair, side, show_accepted=show_accepted)
        for name, pair, side in zip(names, drawn, sides, strict=True)
    ]
    sheet = Sheet(review, tuple(rows))
    key = ReviewKey(
        review=review,
        sheet_sha256=sheet.sha256,
        seed=seed,
        created=created,
        challenger=challenger,
        opponent=opponent,
        n_questions=len(pairs),
        n_identical=sum(not pair.differs for pair in pairs),
        rows=tuple(
            KeyRow(name, pair.question_id, pair.document_id, side)
            for name, pair, side in zip(names, drawn, sides, strict=True)
        ),
        where={name: list(values) for name, values in (where or {}).items()},
        run_id=run_id,
    )
    return sheet, key


def sheet_csv(sheet: Sheet) -> str:
    """The sheet for a spreadsheet, its columns `verdict` and `comment` to be filled."""
    shows_accepted = any(row.accepted for row in sheet.rows)
    columns = ["review", "sheet", "row", "question", "passages"]
    columns += ["accepted"] * shows_accepted + ["answer_a", "answer_b", *FILLED]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for row in sheet.rows:
        cells = {
            "question": row.question,
            "passages": "\n\n".join(row.passages),
            "accepted": " | ".join(row.accepted),
            "answer_a": row.answer_a,
            "answer_b": row.answer_b,
        }
        shown = {name: plain_cell(text) for name, text in cells.items()}
        writer.writerow({"review": sheet.review, "sheet": sheet.sha256, "row": row.row, **shown})
    return file.getvalue()


def plain_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe goes before what looks like one.

    >>> plain_cell("=1+1")
    "'=1+1"
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _sheet_row(name: str, pair: AnswerPair, side: Side, *, show_accepted: bool) -> SheetRow:
    given = [pair.challenger, pair.opponent]
    first, second = given if side == "A" else reversed(given)
    return SheetRow(
        row=name,
        question=pair.question,
        passages=tuple(_excerpt(text, given) for text in pair.passages[:_PASSAGES]),
        accepted=(pair.accepted or ("(not answerable)",)) if show_accepted else (),
        answer_a=first or NO_ANSWER,
        answer_b=second or NO_ANSWER,
    )


def _excerpt(text: str, answers: Sequence[str]) -> str:
    """A passage cut to what can be read at a glance, around the first answer that stands in it."""
    text = " ".join(text.split())
    if len(text) <= _PASSAGE_CHARACTERS:
        return text
    lower = text.lower()
    places = [lower.find(answer.lower()) for answer in answers if answer]
    middle = min((place for place in places if place >= 0), default=0)
    start = max(0, min(middle - _PASSAGE_CHARACTERS // 2, len(text) - _PASSAGE_CHARACTERS))
    end = start + _PASSAGE_CHARACTERS
    # Whole words, where the script has them.
    if start:
        start = min(text.find(" ", start) % (len(text) + 1), middle, start + 20)
    if end < len(text):
        end = max(text.rfind(" ", start, end), end - 20)
    return f"{'… ' * (start > 0)}{text[start:end].strip()}{' …' * (end < len(text))}"
