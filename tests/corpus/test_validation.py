"""Every bad input is told with file, line and reason, all at once; nothing is dropped silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.corpus import Problem, check_corpus, prepare_corpus
from rag.corpus.reader import read_corpus
from rag.errors import DataError
from rag.params import PrepareParams


def problems_of(root: Path) -> list[str]:
    return [str(problem) for problem in read_corpus(root).problems]


def test_a_problem_reads_as_file_line_reason() -> None:
    problem = Problem("questions.jsonl", 12, "answer 'x' is not in document 'vessels/petrel.md'")
    assert str(problem) == ("questions.jsonl:12: answer 'x' is not in document 'vessels/petrel.md'")
    assert str(Problem("a.md", None, "the file is empty")) == "a.md: the file is empty"


BAD_LINES = {
    "answer not in its document": (
        {"answers": ["2010"]},
        "answer '2010' is not in document 'petrel.md'",
    ),
    "answer in another case": (
        {"answers": ["marrable yard"]},
        "answer 'marrable yard' is not in document 'petrel.md' (it has 'Marrable Yard')",
    ),
    "unknown document": (
        {"document": "vessels/Petrel.md"},
        "unknown document 'vessels/Petrel.md'; did you mean 'petrel.md'?",
    ),
    "unknown document without a hint": ({"document": "x.md"}, "unknown document 'x.md'"),
    "no id": ({"id": None}, "'id' must be a text that is not empty, got None"),
    "a truth value as id": ({"id": True}, "'id' must be a text that is not empty, got True"),
    "no question": ({"question": "  "}, "'question' must be a text that is not empty, got '  '"),
    "a number as document": ({"document": 3}, "'document' must be a document's id or null, got 3"),
    "one text as answers": ({"answers": "a"}, "'answers' must be a list of texts, got 'a'"),
    "an empty answer": ({"answers": ["2009", " "]}, "'answers' holds an empty text"),
    "a word as answerable": (
        {"answerable": "perhaps"},
        "'answerable' must be true or false, got 'perhaps'",
    ),
    "answerable without answers": (
        {"answers": []},
        "it is answerable but has no answers; where the documents do not say, set answerable false",
    ),
    "unanswerable with answers": (
        {"answerable": False},
        "it is not answerable but has answers ['Marrable Yard']",
    ),
    "answerable without a document": (
        {"document": None},
        "an answerable question must name its 'document'",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_row(
    write_corpus: Any, petrel: str, question_line: Any, changes: dict[str, Any], reason: str
) -> None:
    lines = question_line(id="good") + question_line(**changes)
    root = write_corpus({"petrel.md": petrel, "questions.jsonl": lines})
    assert problems_of(root) == [f"questions.jsonl:2: {reason}"]


BAD_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "malformed line": (
        "x.jsonl",
        '{"id": "q2", "question" "x"}\n',
        "x.jsonl:1: not valid JSON: Expecting ':' delimiter at column 25",
    ),
    "not an object": ("x.jsonl", "[1]\n", "x.jsonl:1: expected a JSON object, got list"),
    "half a character": (
        "x.jsonl",
        '{"id": "\\ud800"}',
        "x.jsonl:1: not valid JSON: an escape stands for half a character",
    ),
    "not UTF-8": (
        "x.txt",
        "Caf\u00e9".encode("latin-1"),
        "x.txt:1: not UTF-8: byte 0xe9 at offset 3; save the file as UTF-8",
    ),
    "not UTF-8 in line 2": (
        "x.jsonl",
        b"\xef\xbb\xbf\n\xff",
        "x.jsonl:2: not UTF-8: byte 0xff at offset 4; save the file as UTF-8",
    ),
    "empty file": ("x.jsonl", "", "x.jsonl: the file is empty"),
    "empty document": ("x.md", " \n\n", "x.md: the file is empty"),
    "document of a title": ("x.md", "# Title\n", "x.md: the document has no text"),
    "page without text": ("x.html", "<p> </p>", "x.html: the document has no text"),
    "no gzip": (
        "x.jsonl.gz",
        b"{}",
        "x.jsonl.gz: not a valid .gz file: Not a gzipped file (b'{}')",
    ),
    "other JSON": (
        "x.json",
        '{"a": 1}',
        "x.json: expected SQuAD JSON: an object with a list 'data' of articles",
    ),
    "broken JSON": (
        "x.json",
        '{"data":\n [}',
        "x.json:2: not valid JSON: Expecting value at column 3",
    ),
    "no paragraphs": (
        "x.json",
        '{"data": [{}]}',
        "x.json: data[0]: expected an article with 'paragraphs'",
    ),
    "no context": (
        "x.json",
        '{"data": [{"paragraphs": [{"qas": []}]}]}',
        "x.json: data[0].paragraphs[0]: expected a 'context' that is not empty",
    ),
    "bad SQuAD question": (
        "x.json",
        '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "i", "question": ""}]}]}]}',
        "x.json: data[0].paragraphs[0].qas[0]: 'question' must be a text that is not empty, got ''",
    ),
    "CSV without a column": (
        "x.csv",
        "id,text\n1,a\n",
        "x.csv:1: the header lacks question, answers; it has id, text",
    ),
    "CSV row too long": (
        "x.csv",
        "id,question,answers\n1,a,b,c\n",
        "x.csv:2: the row has more cells than the header",
    ),
    "CSV row too short": (
        "x.csv",
        "id,question,answers\n1,a\n",
        "x.csv:2: the row has fewer cells than the header",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file(
    write_corpus: Any, petrel: str, question_line: Any, case: tuple[str, str | bytes, str]
) -> None:
    name, content, problem = case
    good = {"petrel.md": petrel, "good.jsonl": question_line(id="good")}
    problems = problems_of(write_corpus({**good, name: content}))
    assert problem in problems
    assert all(item.startswith("x.") for item in problems)


@pytest.mark.parametrize("name", ["x.pdf", "x.docx", "x.parquet"])
def test_a_damaged_file(write_corpus: Any, petrel: str, question_line: Any, name: str) -> None:
    root = write_corpus({"petrel.md": petrel, "q.jsonl": question_line(), name: b"PK\x03 no"})
    (problem,) = problems_of(root)
    assert problem.startswith(f"{name}: not a readable ")


def test_duplicate_documents(write_corpus: Any, petrel: str, question_line: Any) -> None:
    lines = question_line(document="Petrel.md")
    root = write_corpus({"petrel.md": petrel, "Petrel.md": petrel, "q.jsonl": lines})
    assert problems_of(root) == [
        "petrel.md: document id 'petrel.md' differs from 'Petrel.md' only in case "
        "(first in Petrel.md)",
    ]
    root = write_corpus({"petrel.md": petrel, "a/x.json": SQUAD, "b/x.json": SQUAD})
    assert "b/x.json: document id 'x/A#0' occurs twice (first in a/x.json)" in (problems_of(root))


SQUAD = '{"data": [{"title": "A", "paragraphs": [{"context": "c", "qas": []}]}]}'


def test_duplicate_questions(write_corpus: Any, petrel: str, question_line: Any) -> None:
    root = write_corpus(
        {
            "petrel.md": petrel,
            "a.jsonl": question_line(id="q1"),
            "b.jsonl": question_line(id="q1") + question_line(id="Q1"),
        }
    )
    assert problems_of(root) == [
        "b.jsonl:1: question id 'q1' occurs twice (first at a.jsonl:1)",
        "b.jsonl:2: question id 'Q1' differs from 'q1' only in case (first at a.jsonl:1)",
    ]


def test_an_empty_corpus(write_corpus: Any, petrel: str, tmp_path: Path) -> None:
    assert [problem.split(" (")[0] for problem in problems_of(write_corpus({}))] == [
        "corpus: no usable documents found",
        "corpus: no usable questions found",
    ]
    with pytest.raises(DataError, match="no usable questions found"):
        check_corpus(write_corpus({"petrel.md": petrel}))
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        check_corpus(tmp_path / "nowhere")


@pytest.fixture
def mixed(write_corpus: Any, petrel: str, question_line: Any) -> Path:
    lines = question_line() + "{broken\n" + question_line(id="q2", answers=["2010"])
    root: Path = write_corpus(
        {"petrel.md": petrel, "broken.txt": b"\xff", "questions.jsonl": lines}
    )
    return root


def test_strict_stops_with_every_problem(mixed: Path) -> None:
    with pytest.raises(DataError, match=r"prepare\.strict=false") as caught:
        prepare_corpus(mixed, PrepareParams(), 13)
    assert caught.value.problems == (
        "broken.txt:1: not UTF-8: byte 0xff at offset 0; save the file as UTF-8",
        "questions.jsonl:2: not valid JSON: "
        "Expecting property name enclosed in double quotes at column 2",
        "questions.jsonl:3: answer '2010' is not in document 'petrel.md'",
    )
    assert caught.value.exit_code == 2


def test_not_strict_sets_bad_rows_aside(mixed: Path) -> None:
    prepared = prepare_corpus(mixed, PrepareParams(strict=False), 13)
    assert [question.question_id for question in prepared.questions] == ["q1"]
    unreadable, malformed, lost = prepared.rejects
    assert (unreadable["file"], unreadable["row"]) == ("broken.txt", None)
    assert (malformed["line"], malformed["row"]) == (2, "{broken")
    assert lost["row"]["id"] == "q2"
    assert lost["reason"] == "answer '2010' is not in document 'petrel.md'"
    assert json.loads(json.dumps(prepared.rejects)) == list(prepared.rejects)
    assert prepared.summary.rejected_rows == 3


def test_not_strict_still_refuses_a_corpus_of_which_nothing_is_left(
    write_corpus: Any, petrel: str, question_line: Any
) -> None:
    root = write_corpus({"petrel.md": petrel, "q.jsonl": question_line(answers=["2010"])})
    with pytest.raises(DataError) as caught:
        prepare_corpus(root, PrepareParams(strict=False), 13)
    assert len(caught.value.problems) == 2
