"""Which answers people are asked about: pairs that differ, a seeded sample, sides shuffled.

Two systems answered the same questions. Where both gave the same answer there is nothing to judge:
such a pair counts as a tie, and nobody is asked. Of the others a simple random sample is drawn, so
that what is found for it holds for all that changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from rag.errors import InputError, MetricError
from rag.records import sorted_json

Side = Literal["A", "B"]
#: Field to the values that it may have.
Conditions = Mapping[str, Sequence[str]]

_COLUMNS = ("language", "document_id", "answerable")
_NAMED_IN_A_MESSAGE = 12


@dataclass(frozen=True)
class AnswerPair:
    """A question with the answers of two systems, "" where one declined, and all their passages."""

    question_id: str
    document_id: str | None
    question: str
    accepted: tuple[str, ...]
    passages: tuple[str, ...]
    challenger: str
    opponent: str
    slices: Mapping[str, str]

    @property
    def differs(self) -> bool:
        """Whether there is anything to judge: white space alone is nothing."""
        return self.challenger != self.opponent


def answer_pairs(challenger: pa.Table, opponent: pa.Table) -> list[AnswerPair]:
    """Pairs in the challenger's order; the tables hold one system each (`records.PREDICTIONS`).

    Passages are those of either system, best rank first and then by id: nothing tells whose they
    are. Raises MetricError where the systems were not asked the same questions.
    """
    others = {row["question_id"]: row for row in opponent.to_pylist()}
    rows = challenger.to_pylist()
    alone = sorted({row["question_id"] for row in rows} ^ set(others))
    if alone or not rows or len(others) < len(rows) or opponent.num_rows != len(others):
        shown = ", ".join(alone[:_NAMED_IN_A_MESSAGE]) or "the ids are not the same, each once"
        raise MetricError(f"review: the two systems were not asked the same questions: {shown}")
    return [_pair(row, others[row["question_id"]]) for row in rows]


def select(pairs: Sequence[AnswerPair], where: Conditions) -> list[AnswerPair]:
    """Pairs of a slice: values of one field are alternatives, every field is a condition.

    Raises InputError for a field that no question has, and for a slice without questions.
    """
    known = sorted({name for pair in pairs for name in pair.slices})
    unknown = [name for name in where if name not in known]
    if unknown:
        raise InputError(
            [
                f"--slice {name}: no question has it; there are {', '.join(known)}"
                for name in unknown
            ]
        )
    chosen = [
        pair
        for pair in pairs
        if all(pair.slices.get(name) in values for name, values in where.items())
    ]
    if not chosen:
        raise InputError([_nothing_found(pairs, name) for name in where])
    return chosen


def sample_pairs(pairs: Sequence[AnswerPair], n: int | None, seed: int) -> list[AnswerPair]:
    """`n` of the pairs that differ, all of them where n is None or too large, in random order."""
    changed = [pair for pair in pairs if pair.differs]
    order = np.random.default_rng([seed, 0]).permutation(len(changed))
    return [changed[place] for place in order[:n]]


def shuffled_sides(n: int, seed: int) -> list[Side]:
    """The challenger's side in each of n rows: A in half of them, so that habit favours nobody."""
    sides: list[Side] = ["A" if place % 2 == 0 else "B" for place in range(n)]
    generator = np.random.default_rng([seed, 1])
    if n % 2 and generator.integers(2):
        sides[-1] = "B"
    return [sides[place] for place in generator.permutation(n)]


def answers_digest(table: pa.Table) -> str:
    """SHA-256 of what one system answered to which question, in whatever order."""
    rows = table.select(["question_id", "question", "prediction"]).to_pylist()
    said = sorted((row["question_id"], row["question"], _tidy(row["prediction"])) for row in rows)
    return hashlib.sha256(sorted_json(said).encode()).hexdigest()


def _pair(row: Mapping[str, Any], other: Mapping[str, Any]) -> AnswerPair:
    if row["question"] != other["question"]:
        raise MetricError(f"review: another question under the same id {row['question_id']}")
    return AnswerPair(
        question_id=row["question_id"],
        document_id=row["document_id"],
        question=_tidy(row["question"]),
        accepted=tuple(row["answers"]),
        passages=_passages(row, other),
        challenger=_given(row),
        opponent=_given(other),
        slices={name: _word(value) for name, value in _slices(row).items()},
    )


def _given(row: Mapping[str, Any]) -> str:
    return "" if row["abstained"] else _tidy(row["prediction"])


def _slices(row: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: row[name] for name in _COLUMNS if row[name] is not None}
    return {**own, **json.loads(row["slices"] or "{}")}


def _passages(*rows: Mapping[str, Any]) -> tuple[str, ...]:
    best: dict[str, tuple[int, str]] = {}
    for row in rows:
        for passage in row["evidence"] or ():
            place = (passage["rank"], passage["chunk_id"])
            best[passage["text"]] = min(best.get(passage["text"], place), place)
    return tuple(sorted(best, key=lambda text: best[text]))


def _nothing_found(pairs: Sequence[AnswerPair], name: str) -> str:
    values = sorted({pair.slices[name] for pair in pairs if name in pair.slices})
    shown = ", ".join(values[:_NAMED_IN_A_MESSAGE])
    more = f" and {len(values) - _NAMED_IN_A_MESSAGE} more" * (len(values) > _NAMED_IN_A_MESSAGE)
    return f"--slice {name}: no test question has all that was asked for; {name} is {shown}{more}"


def _word(value: Any) -> str:
    """As it is written on the command line: `true`, `3`, `en`."""
    return value if isinstance(value, str) else sorted_json(value)


def _tidy(text: str) -> str:
    return " ".join(text.split())
