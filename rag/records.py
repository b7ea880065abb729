"""The records that pass between stages, and the one Parquet schema of each.

Every table is written by `write_table` (no pandas metadata, fixed row groups), so equal rows give
equal bytes. Free-form fields (`metadata`, `slices`) are JSON objects with sorted keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

_ROW_GROUP = 65_536  # rows that a reader can skip, or must decode, at once


@dataclass(frozen=True)
class Document:
    """A text to answer from. `source` is its path below `data/raw/documents`."""

    document_id: str
    title: str
    text: str
    source: str
    language: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A question with its accepted answers; `answers` is empty where `answerable` is false."""

    question_id: str
    text: str
    answers: tuple[str, ...]
    document_id: str | None
    answerable: bool
    split: Split
    language: str
    slices: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """A piece of a document. `chunk_id` is the hash of all else but the token count.

    The fields after `token_count` are the document's: an index shows them and filters by them.
    """

    chunk_id: str
    document_id: str
    ordinal: int
    text: str
    token_count: int
    title: str = ""
    source: str = ""
    language: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Passage:
    """A chunk that was found for a question, best first from rank 1."""

    chunk_id: str
    document_id: str
    text: str
    score: float
    rank: int
    dense_score: float = 0.0
    bm25_score: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """A passage that an answer was read from; `score` is what retrieval gave it.

    `posterior` is p(passage | question, answer), of a reader that weighs passages; else None.
    """

    chunk_id: str
    document_id: str
    text: str
    score: float
    rank: int
    posterior: float | None = None


@dataclass(frozen=True)
class Answer:
    """An answer; `text` is empty and `abstained` true where the system declines to answer.

    `score` is the mean log probability per answer token (causal reader) or the log probability of
    the span (extractive): higher is more confident.
    """

    text: str
    score: float
    abstained: bool
    evidence: tuple[Evidence, ...] = ()


#: `posterior` is null where the reader weighs no passages, or did not read this one.
_EVIDENCE_FIELDS = [
    ("chunk_id", pa.string()),
    ("document_id", pa.string()),
    ("text", pa.string()),
    ("score", pa.float64()),
    ("rank", pa.int32()),
    ("posterior", pa.float64()),
]

DOCUMENTS = pa.schema(
    [
        ("document_id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("metadata", pa.string()),
    ]
)
QUESTIONS = pa.schema(
    [
        ("question_id", pa.string()),
        ("text", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("document_id", pa.string()),
        ("answerable", pa.bool_()),
        ("split", pa.string()),
        ("language", pa.string()),
        ("slices", pa.string()),
    ]
)
CHUNKS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("document_id", pa.string()),
        ("ordinal", pa.int32()),
        ("text", pa.string()),
        ("token_count", pa.int32()),
        ("title", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("metadata", pa.string()),
    ]
)
#: Passages found for the train and dev questions, `retrieve.top_k` rows a question, best first.
CONTEXTS = pa.schema(
    [
        ("question_id", pa.string()),
        ("rank", pa.int32()),
        ("chunk_id", pa.string()),
        ("score", pa.float64()),
        ("dense_score", pa.float64()),
        ("bm25_score", pa.float64()),
    ]
)
#: One row for each (system, question), scored by the rules of `metrics_version`. `exact_match` to
#: `ndcg@5` are scores of that single answer, 0 to 1. Retrieval scores are null where the question
#: is unanswerable or the system does not retrieve; so is `gold_rank`, the rank of the first
#: relevant passage, also where none was found. `gold_read` says whether a relevant one was read,
#: `evidence_em` is the exact match with right evidence: null for a system that reads nothing.
#: `error` is a label of `rag.evaluation.attribution`, null for what is right or not looked into.
PREDICTIONS = pa.schema(
    [
        ("system", pa.string()),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("document_id", pa.string()),
        ("answerable", pa.bool_()),
        ("language", pa.string()),
        ("slices", pa.string()),
        ("prediction", pa.string()),
        ("score", pa.float64()),
        ("abstained", pa.bool_()),
        ("evidence", pa.list_(pa.struct(_EVIDENCE_FIELDS))),
        ("exact_match", pa.float64()),
        ("f1", pa.float64()),
        ("rougeL", pa.float64()),
        ("rouge1", pa.float64()),
        ("rouge2", pa.float64()),
        ("chrf", pa.float64()),
        ("evidence_em", pa.float64()),
        ("recall@1", pa.float64()),
        ("recall@5", pa.float64()),
        ("mrr", pa.float64()),
        ("precision@5", pa.float64()),
        ("ndcg@5", pa.float64()),
        ("gold_rank", pa.int32()),
        ("gold_read", pa.bool_()),
        ("error", pa.string()),
        ("metrics_version", pa.string()),
    ]
)


def sorted_json(value: Any) -> str:
    """JSON with sorted keys and no needless spaces: the same value always gives the same text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def to_table(rows: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Dataclass instances or mappings as a table, columns and types as in `schema`."""
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for row in rows:
        values = row if isinstance(row, Mapping) else asdict(row)
        for name, column in columns.items():
            value = values[name]
            if name in ("metadata", "slices") and not isinstance(value, str):
                value = sorted_json(dict(value))
            column.append(value)
    return pa.Table.from_pydict(columns, schema=schema)


def write_table(rows: Iterable[Any], schema: pa.Schema, path: Path) -> None:
    """Writes rows as Parquet in `schema`; equal rows give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = to_table(rows, schema)
    pq.write_table(table, path, compression="zstd", store_schema=False, row_group_size=_ROW_GROUP)


def read_table(path: Path) -> pa.Table:
    """Reads a Parquet table whole; the error of a missing file names it."""
    with path.open("rb") as file:
        return pq.ParquetFile(file).read()  # pq.read_table would import pandas


def _from_rows(kind: type[Any], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    names = {item.name for item in fields(kind)}
    records = []
    for row in rows:
        values = {name: value for name, value in row.items() if name in names}
        for name in ("metadata", "slices"):
            if name in values:
                values[name] = json.loads(values[name])
        if "answers" in values:
            values["answers"] = tuple(values["answers"])
        records.append(kind(**values))
    return records


def read_documents(path: Path) -> list[Document]:
    """Documents in the table's order."""
    return _from_rows(Document, read_table(path).to_pylist())


def read_questions(path: Path, split: Split | None = None) -> list[Question]:
    """Questions in the table's order, of one split when it is given."""
    rows = _from_rows(Question, read_table(path).to_pylist())
    return [question for question in rows if split is None or question.split == split]


def read_chunks(path: Path, *, document_ids: Iterable[str] | None = None) -> list[Chunk]:
    """Chunks in the table's order, of the named documents when they are given."""
    if document_ids is None:
        return _from_rows(Chunk, read_table(path).to_pylist())
    wanted = pa.array(sorted(set(document_ids)), pa.string())
    batches = _iter_rows(path, _ROW_GROUP, None, 0)
    chosen = (rows.filter(pc.is_in(rows["document_id"], value_set=wanted)) for rows in batches)
    return _from_rows(Chunk, [row for rows in chosen for row in rows.to_pylist()])


def iter_chunks(path: Path, batch_rows: int = 4096, *, start: int = 0) -> Iterator[list[Chunk]]:
    """Chunks in the table's order from row `start`, at most `batch_rows` at a time.

    The table is never in memory whole: row groups before `start` are not even read.
    """
    for batch in _iter_rows(path, batch_rows, None, start):
        yield _from_rows(Chunk, batch.to_pylist())


def iter_chunk_texts(path: Path, batch_rows: int = 4096) -> Iterator[list[str]]:
    """The texts alone, in the table's order, at most `batch_rows` at a time."""
    for batch in _iter_rows(path, batch_rows, ["text"], 0):
        yield batch.column(0).to_pylist()


def _iter_rows(
    path: Path, batch_rows: int, columns: list[str] | None, start: int
) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        skip = start
        groups = list(range(file.metadata.num_row_groups))
        while groups and skip >= file.metadata.row_group(groups[0]).num_rows:
            skip -= file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(batch_rows, row_groups=groups, columns=columns):
            rows = batch.slice(skip)
            skip -= batch.num_rows - rows.num_rows
            if rows.num_rows:
                yield rows
