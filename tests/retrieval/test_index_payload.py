"""rag/retrieval/index_payload.py: what a point stores, and the terms that filters look for."""

from __future__ import annotations

from typing import Any

import pytest

from rag.errors import InputError
from rag.records import Chunk
from rag.retrieval.index_payload import (
    TERMS,
    StoredPassage,
    payload_of,
    stored_passage,
    where_terms,
)

CHUNK = Chunk(
    "00000000000000ff", "d1", 3, "The text.", 4, "Title", "a/b.md", "en", {"year": 1961, "by": "A"}
)


def test_a_passage_comes_back_from_its_payload() -> None:
    expected = StoredPassage(
        "00000000000000ff", "d1", "The text.", "Title", "a/b.md", "en", {"year": 1961, "by": "A"}
    )
    assert stored_passage(255, payload_of(CHUNK)) == expected


@pytest.mark.parametrize(
    ("metadata", "terms"),
    [
        ({}, []),
        ({"year": 1961}, ["metadata.year=1961"]),
        (
            {"ratio": 1.5, "open": True, "shut": False},
            ["metadata.ratio=1.5", "metadata.open=true", "metadata.shut=false"],
        ),
        ({"tags": ["a", "b", "a"]}, ["metadata.tags=a", "metadata.tags=b"]),
        (
            {"by": {"name": "Å", "ids": [1, 2]}},
            ["metadata.by.name=Å", "metadata.by.ids=1", "metadata.by.ids=2"],
        ),
        ({"nothing": None, "empty": ""}, ["metadata.empty="]),
        ({"sum": "a=b"}, ["metadata.sum=a=b"]),
    ],
)
def test_metadata_of_any_type_becomes_terms(metadata: dict[str, Any], terms: list[str]) -> None:
    chunk = Chunk("ff", "d1", 0, "x", 1, "T", "s.md", "en", metadata)
    own = ["document_id=d1", "source=s.md", "language=en"]
    assert payload_of(chunk)[TERMS] == [*own, *terms]


def test_an_unknown_language_or_source_is_no_term() -> None:
    assert payload_of(Chunk("ff", "d1", 0, "x", 1))[TERMS] == ["document_id=d1"]


def test_what_is_asked_for_is_what_is_stored() -> None:
    stored = set(payload_of(CHUNK)[TERMS])
    where = {"document_id": "d1", "source": ["z", "a/b.md"], "metadata.year": "1961"}
    groups = where_terms(where)
    assert groups == [["document_id=d1"], ["source=z", "source=a/b.md"], ["metadata.year=1961"]]
    assert all(stored & set(group) for group in groups)


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(InputError) as error:
        where_terms({"text": "x", "metadata.": "y", "language": [], "source": "a"})
    assert error.value.problems == (
        "where: 'text' cannot be filtered",
        "where: 'metadata.' cannot be filtered",
        "where: 'language' has no value",
    )
    assert error.value.hint == "use document_id, source, language or metadata.KEY"
