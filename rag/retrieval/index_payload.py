"""What a point of the index carries besides its vectors, and the filters over it.

A payload holds the passage whole, so that an answer needs no chunk table, and one list of terms
`field=value` for everything that can be filtered. One keyword index over that list serves the
document's own fields and any metadata, whatever its type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import InputError
from rag.records import Chunk
from rag.retrieval.embeddings import to_chunk_id

#: The payload field that is indexed and filtered.
TERMS = "terms"
FIELDS = ("document_id", "source", "language")
_METADATA = "metadata."

Where = Mapping[str, str | Sequence[str]]
"""Field to value, or to values of which one must match; all fields must match."""


@dataclass(frozen=True)
class StoredPassage:
    """A chunk as the index holds it."""

    chunk_id: str
    document_id: str
    text: str
    title: str
    source: str
    language: str
    metadata: Mapping[str, Any]


def payload_of(chunk: Chunk) -> dict[str, Any]:
    """The payload of a chunk's point."""
    return {
        "document_id": chunk.document_id,
        "text": chunk.text,
        "title": chunk.title,
        "source": chunk.source,
        "language": chunk.language,
        "metadata": dict(chunk.metadata),
        TERMS: list(dict.fromkeys(_terms(chunk))),
    }


def stored_passage(point: int, payload: Mapping[str, Any]) -> StoredPassage:
    return StoredPassage(
        chunk_id=to_chunk_id(point),
        document_id=payload["document_id"],
        text=payload["text"],
        title=payload["title"],
        source=payload["source"],
        language=payload["language"],
        metadata=payload["metadata"],
    )


def where_terms(where: Where) -> list[list[str]]:
    """The terms to look for: one of each inner list must be there.

    Raises InputError for a field that is not stored and for a field without a value.

    >>> where_terms({"language": ["sv", "da"], "metadata.year": "1961"})
    [['language=sv', 'language=da'], ['metadata.year=1961']]
    """
    problems = [
        f"where: {field!r} cannot be filtered"
        for field in where
        if field not in FIELDS and not (field.startswith(_METADATA) and field != _METADATA)
    ]
    groups = []
    for field, values in where.items():
        chosen = [values] if isinstance(values, str) else list(values)
        if not chosen:
            problems.append(f"where: {field!r} has no value")
        groups.append([f"{field}={value}" for value in chosen])
    if problems:
        raise InputError(problems, hint=f"use {', '.join(FIELDS)} or metadata.KEY")
    return groups


def _terms(chunk: Chunk) -> Iterator[str]:
    for field in FIELDS:
        if value := getattr(chunk, field):
            yield f"{field}={value}"
    for key, value in chunk.metadata.items():
        yield from _metadata_terms(f"{_METADATA}{key}", value)


def _metadata_terms(name: str, value: Any) -> Iterator[str]:
    """Numbers and booleans as JSON writes them; each item of a list; nested keys with dots."""
    if isinstance(value, str):
        yield f"{name}={value}"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _metadata_terms(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _metadata_terms(name, inner)
    elif value is not None:
        yield f"{name}={json.dumps(value)}"
