"""Files of answers read as streams: what a whole reading finds, and where a file is broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import DataError
from rag.evaluation.json_streams import object_pairs, object_rows, squad_articles

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@settings(max_examples=40)
@given(
    articles=st.lists(ANY_JSON, max_size=4),
    others=st.dictionaries(st.sampled_from(["version", "title", "x"]), ANY_JSON),
    indent=st.sampled_from([None, 1]),
)
def test_articles_are_those_of_the_whole_file(
    folder: Path, articles: list[Any], others: dict[str, Any], indent: int | None
) -> None:
    for tree in ({**others, "data": articles}, {"data": articles, **others}):
        path = folder / "squad.json"
        path.write_text(json.dumps(tree, indent=indent))
        assert list(squad_articles(path)) == articles


@pytest.mark.parametrize(
    "text",
    [
        '{"data": []',
        '{"data": [1,]}',
        '{"data": [1 2]}',
        '{"data": [1],}',
        '{"data": [1]} more',
        '{"data" [1]}',
        "{1: [1]}",
        "{data: [1]}",
        '{"data": [{]}',
        "{",
        "",
        "nope",
    ],
)
def test_what_json_refuses_is_refused_with_its_line(folder: Path, text: str) -> None:
    path = folder / "broken.json"
    path.write_text("\n" + text)
    with pytest.raises(json.JSONDecodeError):
        json.loads(path.read_text())
    with pytest.raises(DataError, match=r"broken.json:[12]: not valid JSON"):
        list(squad_articles(path))


@pytest.mark.parametrize("text", ["[]", '"data"', "{}", '{"data": {}}', '{"data": null, "x": [1]}'])
def test_json_of_another_shape_is_refused(folder: Path, text: str) -> None:
    path = folder / "other.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r'expected SQuAD JSON, \{"data"'):
        list(squad_articles(path))


def test_lines_keep_their_numbers_and_line_separators_inside_texts(folder: Path) -> None:
    """U+2028 and a carriage return end no line."""
    path = folder / "rows.jsonl.gz"
    lines = ["\ufeff" + json.dumps({"id": "a", "x": "one\u2028two"}, ensure_ascii=False), "", "[1]"]
    lines += ['{"id": "b", "x": 1}\r', "{oops"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    problems: list[str] = []
    rows = list(object_rows(path, problems))
    assert [place.rpartition(":")[2] for place, _ in rows] == ["1", "4"]
    assert rows[0][1]["x"] == "one\u2028two"
    assert len(problems) == 2
    assert "rows.jsonl.gz:3: expected an object, got [1]" in problems[0]
    assert "rows.jsonl.gz:5: not valid JSON" in problems[1]


def test_pairs_keep_repeated_keys_and_nested_objects_are_no_pairs(folder: Path) -> None:
    path = folder / "pairs.json"
    path.write_text('{"a": "x", "a": {"b": 1}}')
    assert object_pairs(path, "{id: answer}") == [("a", "x"), ("a", [("b", 1)])]
    path.write_text("[]")  # an empty list has no pair that is wrong
    with pytest.raises(DataError, match=r"expected a JSON object \{id: answer\}"):
        object_pairs(path, "{id: answer}")
