"""rag/records.py: what is written is what is read, and equal rows give equal bytes."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rag import records
from rag.records import Chunk, Document, Question

DOCUMENTS = [
    Document("a", "Vessels", "The Gannet carries 310.", "vessels/a.md", "en", {"year": 1961}),
    Document("b", "船", "海鷗號載客三百一十人。", "b.txt", "zh"),
]
QUESTIONS = [
    Question("q1", "How many?", ("310", "three hundred"), "a", True, "train", "en", {"kind": "n"}),
    Question("q2", "Who sank her?", (), None, False, "test", "en"),
    Question("q3", "多少人?", ("三百一十",), "b", True, "dev", "zh"),
]


def test_documents_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "documents.parquet"
    records.write_table(DOCUMENTS, records.DOCUMENTS, path)
    assert records.read_documents(path) == DOCUMENTS


def test_questions_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "questions.parquet"
    records.write_table(QUESTIONS, records.QUESTIONS, path)
    assert records.read_questions(path) == QUESTIONS


@pytest.mark.parametrize(("split", "found"), [("train", "q1"), ("dev", "q3"), ("test", "q2")])
def test_questions_of_one_split(tmp_path: Path, split: records.Split, found: str) -> None:
    path = tmp_path / "questions.parquet"
    records.write_table(QUESTIONS, records.QUESTIONS, path)
    assert [question.question_id for question in records.read_questions(path, split)] == [found]


def test_chunks_come_back_in_their_order(tmp_path: Path) -> None:
    chunks = [
        Chunk("z", "a", 1, "second", 1, "T", "a.md", "sv", {"year": 1961, "by": ["A"]}),
        Chunk("y", "a", 0, "first", 1),
    ]
    records.write_table(chunks, records.CHUNKS, tmp_path / "chunks.parquet")
    assert records.read_chunks(tmp_path / "chunks.parquet") == chunks


def test_free_form_fields_are_json_with_sorted_keys(tmp_path: Path) -> None:
    document = Document("a", "", "text", "a.md", "en", {"b": "é", "a": 1})
    records.write_table([document], records.DOCUMENTS, tmp_path / "documents.parquet")
    [row] = records.read_table(tmp_path / "documents.parquet").to_pylist()
    assert row["metadata"] == '{"a":1,"b":"é"}'


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    """The order of a mapping's keys must not reach the file: DVC compares bytes."""
    for name, metadata in (("one", {"a": 1, "b": 2}), ("two", {"b": 2, "a": 1})):
        document = Document("a", "", "text", "a.md", "en", metadata)
        records.write_table([document] * 1000, records.DOCUMENTS, tmp_path / name)
    digests = {
        hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("one", "two")
    }
    assert len(digests) == 1


def test_the_file_carries_the_schema_and_nothing_about_its_writer(tmp_path: Path) -> None:
    records.write_table([], records.CONTEXTS, tmp_path / "contexts.parquet")
    schema = pq.read_schema(tmp_path / "contexts.parquet")
    assert schema.equals(records.CONTEXTS)
    assert schema.metadata is None


def prediction(**values: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(records.PREDICTIONS.names)
    row |= {"system": "tuned", "question_id": "q1", "answers": [], "evidence": [], "slices": "{}"}
    return row | values


def test_a_prediction_keeps_its_evidence_and_its_gaps(tmp_path: Path) -> None:
    evidence = {"chunk_id": "c", "document_id": "a", "text": "t", "score": 0.5, "rank": 1}
    weighed, unread = {**evidence, "posterior": 0.25}, {**evidence, "posterior": None}
    scores = {"recall@1": 1.0, "mrr": None}
    row = prediction(evidence=[weighed, unread], slices={"kind": "n"}, **scores)
    records.write_table([row], records.PREDICTIONS, tmp_path / "predictions.parquet")
    assert records.read_table(tmp_path / "predictions.parquet").to_pylist() == [
        row | {"slices": '{"kind":"n"}'}
    ]


def test_a_row_without_a_column_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    row = prediction()
    del row["f1"]
    with pytest.raises(KeyError, match="f1"):
        records.write_table([row], records.PREDICTIONS, tmp_path / "predictions.parquet")
    assert not list(tmp_path.iterdir())


def test_sorted_json_is_the_same_for_the_same_value() -> None:
    assert records.sorted_json({"b": [1, None], "a": "北"}) == '{"a":"北","b":[1,null]}'


def many_chunks(count: int) -> list[Chunk]:
    return [
        Chunk(f"{i:016x}", f"d{i // 3}", i % 3, f"text {i}", 2, "T", "s.md", "en", {"row": i})
        for i in range(count)
    ]


@pytest.fixture
def chunk_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty chunks in row groups of seven."""
    monkeypatch.setattr(records, "_ROW_GROUP", 7)
    records.write_table(many_chunks(20), records.CHUNKS, tmp_path / "chunks.parquet")
    assert pq.ParquetFile(tmp_path / "chunks.parquet").num_row_groups == 3
    return tmp_path / "chunks.parquet"


@pytest.mark.parametrize("batch_rows", [1, 4, 7, 100])
@pytest.mark.parametrize("start", [0, 1, 6, 7, 13, 14, 19, 20, 50])
def test_chunks_come_in_batches_from_any_row(chunk_file: Path, batch_rows: int, start: int) -> None:
    batches = list(records.iter_chunks(chunk_file, batch_rows, start=start))
    assert [chunk for batch in batches for chunk in batch] == many_chunks(20)[start:]
    assert all(0 < len(batch) <= batch_rows for batch in batches)


def test_texts_come_alone(chunk_file: Path) -> None:
    texts = [text for batch in records.iter_chunk_texts(chunk_file, 3) for text in batch]
    assert texts == [chunk.text for chunk in many_chunks(20)]


def test_chunks_of_named_documents(chunk_file: Path) -> None:
    found = records.read_chunks(chunk_file, document_ids={"d5", "d1", "nowhere"})
    assert found == [*many_chunks(20)[3:6], *many_chunks(20)[15:18]]
    assert records.read_chunks(chunk_file, document_ids=[]) == []
