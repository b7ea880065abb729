"""JSON and JSONL files, also compressed, read one item at a time; problems say file and line."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

from rag.errors import DataError

_LINES = {".jsonl", ".ndjson"}
_LINES_HINT = "A file with one object a line is named .jsonl."
_BLANK = re.compile(r"[ \t\n\r]*")


def is_lines(path: Path) -> bool:
    """Whether the name says that each line is an object of its own."""
    name = path.with_suffix("") if path.suffix in (".gz", ".xz") else path
    return name.suffix in _LINES


def object_rows(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, object) of each line; what is not an object is added to `problems`."""
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                problems.append(f"{place}: not valid JSON: {error.msg}")
                continue
            if isinstance(row, dict):
                yield place, row
            else:
                problems.append(f"{place}: expected an object, got {brief(row)}")


def object_pairs(path: Path, shape: str) -> list[tuple[str, Any]]:
    """The pairs of a JSON object, repeated keys included; `shape` says what it should be."""
    with _opened(path) as file:
        text = file.read()
    with _valid_json(path):
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    if not isinstance(pairs, _Pairs):
        raise DataError(f"{path}: expected a JSON object {shape}", hint=_LINES_HINT)
    return pairs


def squad_articles(path: Path) -> Iterator[Any]:
    """The items of `data` in SQuAD JSON, one at a time."""
    with _opened(path) as file:
        text = file.read()
    with _valid_json(path):
        found = yield from _articles(text)
    if not found:
        raise DataError(f'{path}: expected SQuAD JSON, {{"data": [...]}}', hint=_LINES_HINT)


def brief(value: Any) -> str:
    """A value as JSON, cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object in the order of the file."""


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    try:
        with _raw(path) as raw:
            yield TextIOWrapper(raw, encoding="utf-8-sig", newline="\n")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}") from None


def _raw(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return lzma.open(path) if path.suffix == ".xz" else path.open("rb")


@contextmanager
def _valid_json(path: Path) -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError as error:
        message = f"{path}:{error.lineno}: not valid JSON: {error.msg}"
        raise DataError(message, hint=_LINES_HINT) from None


def _articles(text: str) -> Generator[Any, None, bool]:
    """The items of the list `data` of a JSON object; returns whether there is such a list."""
    decode = json.JSONDecoder().raw_decode
    place, found = _after_blank(text, 0), False
    if not text.startswith("{", place):
        json.loads(text)  # raises when it is no JSON at all
        return False
    place = _after_blank(text, place + 1)
    while not text.startswith("}", place):
        key, place = decode(text, place)
        place = _after_blank(text, place)
        if not isinstance(key, str) or not text.startswith(":", place):
            raise json.JSONDecodeError("Expecting ':' after a property name", text, place)
        place = _after_blank(text, place + 1)
        if key == "data" and text.startswith("[", place):
            found, place = True, _after_blank(text, place + 1)
            while not text.startswith("]", place):
                article, place = decode(text, place)
                yield article
                place = _next_item(text, place, "]")
            place += 1
        else:
            _, place = decode(text, place)
        place = _next_item(text, place, "}")
    if _after_blank(text, place + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, place + 1)
    return found


def _after_blank(text: str, place: int) -> int:
    blank = _BLANK.match(text, place)
    return blank.end() if blank else place


def _next_item(text: str, place: int, closing: str) -> int:
    """Where the next item begins, or the bracket that closes them all."""
    place = _after_blank(text, place)
    if text.startswith(closing, place):
        return place
    if not text.startswith(",", place):
        raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
    place = _after_blank(text, place + 1)
    if text.startswith(closing, place):
        raise json.JSONDecodeError("Illegal trailing comma", text, place)
    return place
