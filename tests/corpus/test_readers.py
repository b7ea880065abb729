"""Every kind of file that is read, from tiny real ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import docx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rag.corpus.reader import RawCorpus, read_corpus


def pdf(text: str) -> bytes:
    """The smallest PDF that shows one line."""
    stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 200] /Contents 4 0 R /Resources "
        b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % o for o in offsets)
    return bytes(out + b"trailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % start)


def word() -> bytes:
    file = docx.Document()
    file.add_heading("Gannet", level=1)
    file.add_paragraph("Gannet was handed over in 2013.")
    table = file.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "Call sign", "MRGN1"
    buffer = io.BytesIO()
    file.save(buffer)
    return buffer.getvalue()


HTML = """<!doctype html><html><head><title>Fog
limits</title><style>p {color: red}</style></head><body><!-- draft --><h1>Fog</h1>
<p>Amber stops at <b>250</b>
metres.</p><ul><li>Red: 400</li><li>Green: 500</li></ul><script>alert("no")</script></body>"""


@pytest.mark.parametrize(
    ("name", "content", "title", "text"),
    [
        ("a.md", "# Petrel #\n\nShe is\nfast.\n", "Petrel", "Petrel\n\nShe is fast."),
        ("b.md", "Draft.\n\n# Petrel\n\nFast.", "Petrel", "Petrel\n\nDraft.\n\nFast."),
        ("c.md", "No heading.\n```\n# comment\n```", "c", "No heading.\n```\n# comment\n```"),
        ("d.txt", "First line.\n\nSecond.", "d", "First line.\n\nSecond."),
        (
            "e.html",
            HTML,
            "Fog limits",
            "Fog\n\nAmber stops at 250 metres.\n\nRed: 400\n\nGreen: 500",
        ),
        ("f.pdf", pdf("Petrel berths at 06:15."), "f", "Petrel berths at 06:15."),
        (
            "g.docx",
            word(),
            "Gannet",
            "Gannet\n\nGannet was handed over in 2013.\n\nCall sign | MRGN1",
        ),
        ("h.txt.gz", gzip.compress(b"Packed.", mtime=0), "h", "Packed."),
    ],
)
def test_a_document_of_each_kind(
    write_corpus: Any, name: str, content: str | bytes, title: str, text: str
) -> None:
    (document,) = read_corpus(write_corpus({name: content})).documents
    assert (document.document_id, document.title, document.text) == (name, title, text)
    assert (document.source, document.language) == (name, "en")


def test_ids_are_relative_to_the_documents_folder(
    write_corpus: Any, petrel: str, question_line: Any
) -> None:
    root = write_corpus(
        {
            "documents/vessels/petrel.md": petrel,
            "questions.jsonl": question_line(document="vessels/petrel.md"),
            "README.md": "# About this corpus\n\nNot a document.",
            "documents/vessels/petrel.png": b"\x89PNG",
            ".gitignore": "/raw",
        }
    )
    corpus = read_corpus(root)
    assert [document.document_id for document in corpus.documents] == ["vessels/petrel.md"]
    assert corpus.ignored == ("README.md", "documents/vessels/petrel.png")
    assert not corpus.problems


def only_question(corpus: RawCorpus) -> tuple[Any, ...]:
    assert corpus.problems == ()
    (question,) = corpus.questions
    return (question.question_id, question.text, question.answers, question.document_id)


def test_a_question_row_and_its_slices(write_corpus: Any, petrel: str, question_line: Any) -> None:
    line = question_line(id=7, answers=["2009", "2009", "the Marrable\nYard"], kind="year", hops=1)
    corpus = read_corpus(write_corpus({"petrel.md": petrel, "q.jsonl": "\n" + line}))
    answers = ("2009", "the Marrable Yard")
    assert only_question(corpus) == ("7", "Who built Petrel?", answers, "petrel.md")
    assert corpus.questions[0].slices == {"kind": "year", "hops": 1}
    assert (corpus.questions[0].line, corpus.questions[0].answerable) == (2, True)


@pytest.mark.parametrize("answers", ["2009|62 cars", '["2009", "62 cars"]', " 2009 | 62 cars |"])
@pytest.mark.parametrize("answerable", ["", "true", "1", "YES"])
def test_csv(write_corpus: Any, petrel: str, answers: str, answerable: str) -> None:
    buffer = io.StringIO()
    rows = csv.writer(buffer)
    rows.writerow(["id", "question", "answers", "document", "answerable", "level"])
    rows.writerow(["q1", 'When, "exactly"?', answers, "petrel.md", answerable, "easy"])
    corpus = read_corpus(write_corpus({"petrel.md": petrel, "q.csv": buffer.getvalue()}))
    assert only_question(corpus) == ("q1", 'When, "exactly"?', ("2009", "62 cars"), "petrel.md")
    assert corpus.questions[0].slices == {"level": "easy"}


def test_parquet(write_corpus: Any, petrel: str) -> None:
    buffer = io.BytesIO()
    columns = {"id": [1], "question": ["When?"], "answers": [["2009"]], "document": ["petrel.md"]}
    pq.write_table(pa.table({**columns, "score": [float("nan")]}), buffer)
    corpus = read_corpus(write_corpus({"petrel.md": petrel, "q.parquet": buffer.getvalue()}))
    assert only_question(corpus) == ("1", "When?", ("2009",), "petrel.md")
    assert corpus.questions[0].slices == {"score": None}


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_packed_questions(
    write_corpus: Any, petrel: str, question_line: Any, suffix: str, pack: Any
) -> None:
    packed = pack(question_line().encode())
    corpus = read_corpus(write_corpus({"petrel.md": petrel, f"q.jsonl{suffix}": packed}))
    assert only_question(corpus)[0] == "q1"


def squad(*articles: dict[str, Any]) -> str:
    return json.dumps({"version": "v2.0", "data": articles})


def article(title: str, context: str, *asked: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "paragraphs": [{"context": context, "qas": list(asked)}]}


def test_squad_paragraphs_become_documents_of_an_article(write_corpus: Any) -> None:
    found = {"text": "2009", "answer_start": 999}
    tree = squad(
        article(
            "Petrel_(ship)", "Built in 2009.", {"id": "a", "question": "When?", "answers": [found]}
        ),
        article(
            "Petrel_(ship)", "Runs daily.", {"id": "b", "question": "Why?", "is_impossible": True}
        ),
    )
    corpus = read_corpus(write_corpus({"set.v2.json.xz": lzma.compress(tree.encode())}))
    assert not corpus.problems
    ids = ["set.v2/Petrel_(ship)#0", "set.v2/Petrel_(ship)#1"]
    assert [document.document_id for document in corpus.documents] == ids
    first = corpus.documents[0]
    assert (first.title, first.text, first.source) == (
        "Petrel (ship)",
        "Built in 2009.",
        "set.v2.json.xz",
    )
    assert first.metadata == {"group": "Petrel_(ship)"}
    answerable, impossible = corpus.questions
    assert (answerable.answers, answerable.document_id) == (("2009",), ids[0])
    assert (impossible.answers, impossible.answerable) == ((), False)
    assert impossible.document_id == ids[1]


def test_one_file_is_a_corpus(write_corpus: Any) -> None:
    asked = {"id": "a", "question": "When?", "answers": [{"text": "2009"}]}
    root = write_corpus(
        {"a.json": squad(article("A", "Built in 2009.", asked)), "b.json": "broken"}
    )
    corpus = read_corpus(root / "a.json")
    assert (len(corpus.documents), len(corpus.questions), corpus.problems) == (1, 1, ())


@pytest.mark.parametrize(
    ("name", "documents", "questions", "problems"),
    [
        ("squad_en/squad-v1.1-36-articles.json.xz", 1540, 7539, 0),
        ("cmrc_zh/cmrc2018_trial.squad.json.xz", 256, 1000, 2),
    ],
)
def test_published_sets(
    real_data: Path, name: str, documents: int, questions: int, problems: int
) -> None:
    corpus = read_corpus(real_data / name)
    assert len(corpus.documents) == documents
    assert (len(corpus.questions), len(corpus.problems)) == (questions, problems)
    # two questions of the Chinese trial set are empty
    assert all("'question' must be a text" in str(problem) for problem in corpus.problems)
    language = "zh" if "zh" in name else "en"
    assert {document.language for document in corpus.documents} == {language}
