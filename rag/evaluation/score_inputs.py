"""Reads the two files of `ragloop score`; every problem is reported with its file and place."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import DataError

_LINES = {".jsonl", ".ndjson"}


@dataclass(frozen=True)
class Reference:
    """The accepted answers of a question, none if it has no answer.

    `cluster` names what is resampled together: a SQuAD paragraph, a `document`, or the question.
    """

    question_id: str
    answers: tuple[str, ...]
    cluster: str


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


def read_references(path: Path) -> list[Reference]:
    """References in the order of the file."""
    problems: list[str] = []
    references: dict[str, Reference] = {}
    for place, reference in _reference_items(path, problems):
        if reference.question_id in references:
            problems.append(f"{place}: id {reference.question_id!r} occurs twice")
        references[reference.question_id] = reference
    if not references and not problems:
        problems.append(f"{path}: no question in this file")
    if problems:
        raise DataError(problems)
    return list(references.values())


def _prediction_items(path: Path, problems: list[str]) -> Iterator[tuple[str, str, Any]]:
    if _is_lines(path):
        for place, row in _lines(path, problems):
            keys = [key for key in ("prediction", "answer") if key in row]
            if not isinstance(row.get("id"), str) or len(keys) != 1:
                problems.append(f'{place}: expected {{"id", "prediction"}}, got keys {sorted(row)}')
                continue
            yield place, row["id"], row[keys[0]]
        return
    pairs = _parse(path, _text(path), object_pairs_hook=list)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise DataError(
            f"{path}: expected a JSON object {{id: answer}}",
            hint="A file with one object a line is named .jsonl.",
        )
    for question_id, text in pairs:
        yield str(path), question_id, text


def _reference_items(path: Path, problems: list[str]) -> Iterator[tuple[str, Reference]]:
    if _is_lines(path):
        for place, row in _lines(path, problems):
            answers = _answers(row.get("answers"))
            question_id, document = row.get("id"), row.get("document")
            if not isinstance(question_id, str) or answers is None:
                problems.append(f'{place}: expected {{"id", "answers": [...]}}, got: {_brief(row)}')
                continue
            if row.get("answerable") is False:
                answers = ()
            elif not answers and row.get("answerable"):
                problems.append(f"{place}: {question_id!r} is answerable but has no answers")
            cluster = f"question {question_id}" if document is None else f"document {document}"
            yield place, Reference(question_id, answers, cluster)
        return
    tree = _parse(path, _text(path))
    if not isinstance(tree, dict) or not isinstance(tree.get("data"), list):
        raise DataError(
            f'{path}: expected SQuAD JSON, {{"data": [...]}}',
            hint="A file with one object a line is named .jsonl.",
        )
    for number, article in enumerate(tree["data"]):
        yield from _squad_article(f"{path}: data[{number}]", article, problems)


def _squad_article(
    place: str, article: Any, problems: list[str]
) -> Iterator[tuple[str, Reference]]:
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
                problems.append(f"{within}: expected a question with id and answers: {_brief(row)}")
            elif not answers and not impossible:
                problems.append(f"{within}: {question_id!r} has no answer and is not impossible")
            else:
                yield within, Reference(question_id, () if impossible else answers or (), within)


def _answers(value: Any) -> tuple[str, ...] | None:
    """Texts, or SQuAD's `{"text": ...}` objects; None when it is neither or one is blank."""
    if not isinstance(value, list):
        return None
    texts = [item.get("text") if isinstance(item, dict) else item for item in value]
    usable = tuple(text for text in texts if isinstance(text, str) and text.strip())
    return usable if len(usable) == len(texts) else None


def _is_lines(path: Path) -> bool:
    name = path.with_suffix("") if path.suffix in (".gz", ".xz") else path
    return name.suffix in _LINES


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        elif path.suffix == ".xz":
            raw = lzma.decompress(raw)
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}") from None


def _parse(path: Path, text: str, **options: Any) -> Any:
    try:
        return json.loads(text, **options)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not valid JSON: {error.msg}",
            hint="A file with one object a line is named .jsonl.",
        ) from None


def _lines(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{place}: not valid JSON: {error.msg}")
            continue
        if isinstance(row, dict):
            yield place, row
        else:
            problems.append(f"{place}: expected an object, got {_brief(row)}")


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
