"""`data check` and `data import`: all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.corpus import check_corpus, import_corpus, prepare_corpus, read_corpus
from rag.corpus.hub import squad_tree
from rag.errors import DataError
from rag.params import PrepareParams


def names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


@pytest.fixture
def good(write_corpus: Any, petrel: str, question_line: Any) -> Path:
    loose = question_line(id="q2", answers=[], document=None, answerable=False)
    root: Path = write_corpus(
        {
            "documents/petrel.md": petrel,
            "documents/北京.txt": "北京是首都。",
            "questions.jsonl": question_line() + loose,
            "notes.png": b"",
        }
    )
    return root


def test_check_counts(good: Path) -> None:
    summary = check_corpus(good)
    assert (summary.documents, summary.questions) == (2, 2)
    assert (summary.answerable, summary.unanswerable) == (1, 1)
    assert summary.languages == {"en": 1, "zh": 1}
    assert summary.words == 13 + 5  # the title counts
    assert summary.ignored == ("notes.png",)


def test_import_takes_what_is_read(good: Path, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "raw"
    assert import_corpus(good, raw, replace=False) == check_corpus(good)
    assert names(raw) == ["documents/petrel.md", "documents/北京.txt", "questions.jsonl"]
    assert read_corpus(raw).documents == read_corpus(good).documents
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


def test_import_of_one_file(tmp_path: Path) -> None:
    asked = {"id": "a", "question": "When?", "answers": [{"text": "2009"}]}
    source = tmp_path / "set.json"
    paragraph = {"context": "Built in 2009.", "qas": [asked]}
    source.write_text(json.dumps({"data": [{"title": "A", "paragraphs": [paragraph]}]}))
    raw = tmp_path / "raw"
    import_corpus(source, raw, replace=False)
    assert names(raw) == ["set.json"]
    prepared = prepare_corpus(raw, PrepareParams(), 13)
    assert [item.document_id for item in prepared.documents] == ["set/A#0"]


def test_import_replaces_only_when_told(good: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / ".gitignore").touch()  # does not count
    import_corpus(good, raw, replace=False)
    (raw / "extra.txt").write_text("from another time")
    with pytest.raises(DataError, match="--replace"):
        import_corpus(good, raw, replace=False)
    assert "extra.txt" in names(raw)
    import_corpus(good, raw, replace=True)
    assert "extra.txt" not in names(raw)


def test_bad_input_changes_nothing(
    good: Path, write_corpus: Any, question_line: Any, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    import_corpus(good, raw, replace=False)
    before = {name: (raw / name).read_bytes() for name in names(raw)}
    bad = write_corpus({"questions.jsonl": question_line(answers=["2010"]) + "{\n"})
    with pytest.raises(DataError) as caught:
        import_corpus(bad, raw, replace=True)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        "questions.jsonl:1",
        "questions.jsonl:2",
        "corpus",
    ]
    assert {name: (raw / name).read_bytes() for name in names(raw)} == before
    assert not list(raw.parent.glob(".raw*"))


def test_a_corpus_can_be_imported_from_its_own_place(good: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    import_corpus(good, raw, replace=False)
    import_corpus(raw, raw, replace=True)
    assert len(names(raw)) == 3


def test_an_interrupted_import_is_undone(good: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    import_corpus(good, raw, replace=False)
    raw.rename(tmp_path / ".raw.replaced")  # killed between the two renames
    (tmp_path / ".raw.incoming").mkdir()
    with pytest.raises(DataError, match="already holds a corpus"):
        import_corpus(good, raw, replace=False)
    assert len(names(raw)) == 3
    assert not list(tmp_path.glob(".raw*"))


def test_hub_rows_become_squad_articles() -> None:
    rows: list[dict[str, Any]] = [
        {"context": "C1", "question": "Q1", "answers": {"text": ["C1"], "answer_start": [0]}},
        {"context": "C1", "question": "Q2", "answers": []},
        {"context": "C2", "question": "Q3", "answers": ["C2"], "id": "x", "title": "T"},
    ]
    first, second = squad_tree([("train", rows)])["data"]
    assert (first["title"], second["title"]) == ("context 0", "T")
    (paragraph,) = first["paragraphs"]
    assert paragraph["context"] == "C1"
    assert paragraph["qas"] == [
        {"id": "train-0", "question": "Q1", "answers": [{"text": "C1"}], "is_impossible": False},
        {"id": "train-1", "question": "Q2", "answers": [], "is_impossible": True},
    ]


def test_import_of_a_set_that_the_datasets_library_loads(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "petrels"
    folder.mkdir()
    row = {"id": "a", "title": "A", "context": "Built in 2009.", "question": "When?"}
    lines = json.dumps({**row, "answers": {"text": ["2009"], "answer_start": [9]}})
    (folder / "train.jsonl").write_text(lines)
    raw = tmp_path / "raw"
    summary = import_corpus(f"hf:{folder}", raw, replace=False)
    assert (summary.documents, summary.questions) == (1, 1)
    (folder / "train.jsonl").write_text('{"text": "no questions"}')
    with pytest.raises(DataError, match="no column question, context, answers; it has text"):
        import_corpus(f"hf:{folder}", raw, replace=True)
    with pytest.raises(DataError, match="cannot be loaded"):
        import_corpus(f"hf:{tmp_path / 'nothing'}", raw, replace=True)
    assert len(names(raw)) == 1
