"""Reads the files of `ragloop score`; every problem is reported with its file and place.

Files are read as streams: lines one by one, and SQuAD JSON one article at a time, so that a million
questions are a few columns of text in memory and never a tree of objects.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import DataError
from rag.evaluation.json_streams import brief, is_lines, object_pairs, object_rows, squad_articles


@dataclass
class References:
    """The questions of a file, a column for each thing known of them.

    `answers` has the accepted answers, none where there is no answer. `clusters` names what is
    resampled together: a SQuAD paragraph, a `document`, or the question. `groups` has the value of
    the key that the file was read by, if any.
    """

    question_ids: list[str] = field(default_factory=list)
    answers: list[tuple[str, ...]] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def in_order_of_ids(self) -> References:
        """The same questions sorted by id: then no result depends on the order of a file."""
        order = sorted(range(len(self.question_ids)), key=self.question_ids.__getitem__)
        return References(
            [self.question_ids[row] for row in order],
            [self.answers[row] for row in order],
            [self.clusters[row] for row in order],
            [self.groups[row] for row in order if self.groups],
        )


@dataclass(frozen=True)
class _Reference:
    question_id: str
    answers: tuple[str, ...]
    cluster: str
    group: str | None = None


def read_predictions(path: Path) -> dict[str, str]:
    """Answer text by question id; "" where the system declines to answer."""
    problems: list[str] = []
    predictions: dict[str, str] = {}
    for place, question_id, text in _prediction_items(path, problems):
        if question_id in predictions:
            problems.append(f"{place}: id {question_id!r} occurs twice")
        elif text is not None and not isinstance(text, str):
            problems.append(f"{place}: the answer of {question_id!r} must be a text, got {text!r}")
        predictions[question_id] = text if isinstance(text, str) else ""
    if problems:
        raise DataError(problems)
    return predictions


def read_references(path: Path, *, group_by: str | None = None) -> References:
    """The questions of a file; `group_by` names a key of its JSONL rows that each row must have."""
    problems: list[str] = []
    references = References()
    seen: set[str] = set()
    for place, found in _reference_items(path, group_by, problems):
        if found.question_id in seen:
            problems.append(f"{place}: id {found.question_id!r} occurs twice")
        seen.add(found.question_id)
        references.question_ids.append(found.question_id)
        references.answers.append(found.answers)
        references.clusters.append(found.cluster)
        if found.group is not None:
            references.groups.append(found.group)
    if not seen and not problems:
        problems.append(f"{path}: no question in this file")
    if problems:
        raise DataError(problems)
    return references.in_order_of_ids()


def read_no_answer_scores(path: Path, question_ids: Sequence[str]) -> list[float]:
    """How sure the system is that there is no answer, a number for each of these questions.

    The file is a JSON object `{id: number}`, as for the official script of SQuAD 2.0. Raises
    DataError for a question without a number, a number that is not finite, and an unknown id.
    """
    problems: list[str] = []
    scores: dict[str, float] = {}
    for question_id, value in object_pairs(path, "{id: number}"):
        if question_id in scores:
            problems.append(f"{path}: id {question_id!r} occurs twice")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and abs(value) <= sys.float_info.max:
            scores[question_id] = float(value)
        else:
            problems.append(f"{path}: {question_id!r} needs a finite number, got {value!r}")
            scores[question_id] = 0.0
    known = set(question_ids)
    problems += [f"{path}: id {name!r} is not in the references" for name in scores.keys() - known]
    problems += [f"{path}: no number for {name!r}" for name in question_ids if name not in scores]
    if problems:
        raise DataError(sorted(problems))
    return [scores[question_id] for question_id in question_ids]


def _prediction_items(path: Path, problems: list[str]) -> Iterator[tuple[str, str, Any]]:
    if not is_lines(path):
        yield from ((str(path), *pair) for pair in object_pairs(path, "{id: answer}"))
        return
    for place, row in object_rows(path, problems):
        keys = [key for key in ("prediction", "answer") if key in row]
        if isinstance(row.get("id"), str) and len(keys) == 1:
            yield place, row["id"], row[keys[0]]
        else:
            problems.append(f'{place}: expected {{"id", "prediction"}}, got keys {sorted(row)}')


def _reference_items(
    path: Path, group_by: str | None, problems: list[str]
) -> Iterator[tuple[str, _Reference]]:
    if is_lines(path):
        yield from _rows(object_rows(path, problems), group_by, problems)
        return
    if group_by is not None:
        raise DataError(
            f"{path}: only JSONL references have a key {group_by!r} to group by",
            hint='Give one object a line: {"id", "answers": [...], "' + group_by + '"}.',
        )
    for number, article in enumerate(squad_articles(path)):
        yield from _squad_article(f"{path}: data[{number}]", article, problems)


def _rows(
    rows: Iterable[tuple[str, dict[str, Any]]], group_by: str | None, problems: list[str]
) -> Iterator[tuple[str, _Reference]]:
    for place, row in rows:
        answers = _answers(row.get("answers"))
        question_id, document = row.get("id"), row.get("document")
        if not isinstance(question_id, str) or answers is None:
            problems.append(f'{place}: expected {{"id", "answers": [...]}}, got: {brief(row)}')
            continue
        if row.get("answerable") is False:
            answers = ()
        elif not answers and row.get("answerable"):
            problems.append(f"{place}: {question_id!r} is answerable but has no answers")
        group = None
        if group_by is not None:
            if row.get(group_by) is None:
                problems.append(f"{place}: {question_id!r} has no {group_by!r}")
            group = str(row.get(group_by))
        cluster = f"question {question_id}" if document is None else f"document {document}"
        yield place, _Reference(question_id, answers, cluster, group)


def _squad_article(
    place: str, article: Any, problems: list[str]
) -> Iterator[tuple[str, _Reference]]:
    paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
    if not isinstance(paragraphs, list):
        problems.append(f"{place}: expected a list 'paragraphs'")
        return
    for number, paragraph in enumerate(paragraphs):
        within = f"{place}.paragraphs[{number}]"
        questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
        if not isinstance(questions, list):
            problems.append(f"{within}: expected a list 'qas'")
            continue
        for row in questions:
            question_id = row.get("id") if isinstance(row, dict) else None
            answers = _answers(row.get("answers")) if isinstance(row, dict) else None
            impossible = isinstance(row, dict) and row.get("is_impossible") is True
            if not isinstance(question_id, str) or (answers is None and not impossible):
                problems.append(f"{within}: expected a question with id and answers: {brief(row)}")
            elif not answers and not impossible:
                problems.append(f"{within}: {question_id!r} has no answer and is not impossible")
            else:
                yield within, _Reference(question_id, () if impossible else answers or (), within)


def _answers(value: Any) -> tuple[str, ...] | None:
    """Texts, or SQuAD's `{"text": ...}` objects; None when it is neither or one is blank."""
    if not isinstance(value, list):
        return None
    texts = [item.get("text") if isinstance(item, dict) else item for item in value]
    usable = tuple(text for text in texts if isinstance(text, str) and text.strip())
    return usable if len(usable) == len(texts) else None
