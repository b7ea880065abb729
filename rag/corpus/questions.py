"""Questions from JSON Lines, CSV and Parquet: one row, one question, every fault of a row reported.

A row has `id`, `question`, `answers`, `document` and `answerable`; anything else in it becomes a
slice. `answerable` may be left out and is then true.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rag.corpus.files import CorpusFile
from rag.corpus.problems import Problem, Unreadable
from rag.corpus.text import plain_text

COLUMNS = ("id", "question", "answers", "document", "answerable")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": None}
_SEARCHED = "the documents do not say"


@dataclass(frozen=True)
class RawQuestion:
    """A question as it was read, with its place: not yet compared with the documents, nor split."""

    question_id: str
    text: str
    answers: tuple[str, ...]
    document_id: str | None
    answerable: bool
    file: str
    line: int | None
    slices: Mapping[str, Any] = field(default_factory=dict)
    row: Any = field(default=None, compare=False, repr=False)


def read_questions(file: CorpusFile) -> tuple[list[RawQuestion], list[Problem]]:
    """The good rows of a question file and the problems of the others. Raises Unreadable."""
    rows = {".jsonl": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}[file.suffix]
    questions: list[RawQuestion] = []
    problems: list[Problem] = []
    for line, row in rows(file):
        if isinstance(row, Problem):
            problems.append(row)
            continue
        question = parse_row(row, file.name, line)
        if isinstance(question, RawQuestion):
            questions.append(question)
        else:
            problems += question
    return questions, problems


def parse_row(row: Mapping[str, Any], file: str, line: int | None) -> RawQuestion | list[Problem]:
    """One row as a question, or everything that is wrong with it."""
    faults: list[str] = []
    question_id, text, document_id = row.get("id"), row.get("question"), row.get("document")
    answers, answerable = row.get("answers"), row.get("answerable")
    if isinstance(question_id, int) and not isinstance(question_id, bool):
        question_id = str(question_id)
    if not isinstance(question_id, str) or not question_id.strip():
        faults.append(f"'id' must be a text that is not empty, got {question_id!r}")
    if not isinstance(text, str) or not text.strip():
        faults.append(f"'question' must be a text that is not empty, got {text!r}")
    if document_id is not None and (not isinstance(document_id, str) or not document_id):
        faults.append(f"'document' must be a document's id or null, got {document_id!r}")
    if answerable is not None and not isinstance(answerable, bool):
        faults.append(f"'answerable' must be true or false, got {answerable!r}")
    if answers is None:
        answers = []
    if not isinstance(answers, list) or not all(isinstance(item, str) for item in answers):
        faults.append(f"'answers' must be a list of texts, got {answers!r}")
    elif any(not item.strip() for item in answers):
        faults.append("'answers' holds an empty text")
    elif answerable is False and answers:
        faults.append(f"it is not answerable but has answers {answers!r}")
    elif answerable is not False and not answers:
        faults.append(
            f"it is answerable but has no answers; where {_SEARCHED}, set answerable false"
        )
    elif answerable is not False and document_id is None:
        faults.append("an answerable question must name its 'document'")
    if faults:
        shown = json_ready(row)
        return [Problem(file, line, fault, shown) for fault in faults]
    return RawQuestion(
        question_id=str(question_id),
        text=plain_text(str(text)),
        answers=tuple(dict.fromkeys(plain_text(item) for item in answers)),
        document_id=document_id,
        answerable=answerable is not False,
        file=file,
        line=line,
        slices={key: json_ready(value) for key, value in row.items() if key not in COLUMNS},
        row=json_ready(row),
    )


def json_ready(value: Any) -> Any:
    """The value with what JSON lacks (dates, bytes) as text, and NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def decode_json(text: str) -> Any:
    """The value of a JSON text. Raises Unreadable with line, column and reason."""
    try:
        value = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair can be written as an escape, but not be stored
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        reason = f"not valid JSON: {error.msg} at column {error.colno}"
        raise Unreadable(reason, line=error.lineno) from None
    except UnicodeEncodeError:
        raise Unreadable("not valid JSON: an escape stands for half a character") from None
    except RecursionError:
        raise Unreadable("not valid JSON: nested too deeply") from None
    return value


def _json_lines(file: CorpusFile) -> Iterator[tuple[int, Mapping[str, Any] | Problem]]:
    # Only "\n" ends a line: a JSON text may hold other separators, such as U+2028.
    for line, text in enumerate(file.read_text().split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = decode_json(text)
        except Unreadable as error:
            yield line, Problem(file.name, line, error.reason, text)
            continue
        if isinstance(row, dict):
            yield line, row
        else:
            reason = f"expected a JSON object, got {type(row).__name__}"
            yield line, Problem(file.name, line, reason, row)


def _csv_rows(file: CorpusFile) -> Iterator[tuple[int, Mapping[str, Any] | Problem]]:
    reader = csv.DictReader(io.StringIO(file.read_text(), newline=""), strict=True)
    try:
        header = list(reader.fieldnames or ())
        missing = [name for name in ("id", "question", "answers") if name not in header]
        if missing:
            raise Unreadable(
                f"the header lacks {', '.join(missing)}; it has {', '.join(header)}", line=1
            )
        line = reader.line_num + 1
        for cells in reader:
            yield line, _csv_row(cells, file.name, line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise Unreadable(f"not valid CSV: {error}", line=reader.line_num) from None


def _csv_row(cells: dict[Any, Any], file: str, line: int) -> Mapping[str, Any] | Problem:
    if None in cells:
        return Problem(file, line, "the row has more cells than the header", cells.pop(None))
    if None in cells.values():
        return Problem(file, line, "the row has fewer cells than the header", dict(cells))
    row: dict[str, Any] = dict(cells)
    answers = row["answers"].strip()
    if answers.startswith("["):
        try:
            row["answers"] = decode_json(answers)
        except Unreadable as error:
            return Problem(file, line, f"'answers' is {error.reason}", row)
    else:
        row["answers"] = [item.strip() for item in answers.split("|") if item.strip()]
    row["document"] = row.get("document") or None
    answerable = (row.get("answerable") or "").strip()
    row["answerable"] = _TRUTH.get(answerable.lower(), answerable)
    return row


def _parquet_rows(file: CorpusFile) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = file.read_bytes()
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"not a readable Parquet file: {error}") from None
    yield from enumerate(table.to_pylist(), start=1)
