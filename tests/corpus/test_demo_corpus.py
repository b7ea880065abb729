"""The demo corpus keeps the rules that make retrieval necessary and not trivial.

`demo_withheld_answers.json` says, for each question that cannot be answered, what the answer would
have been. It lies here and not in `data/demo`, where it would be read as a question file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from rag.corpus import PreparedCorpus, prepare_corpus
from rag.corpus.text import words
from rag.params import PrepareParams

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"
WITHHELD = Path(__file__).with_name("demo_withheld_answers.json")


@pytest.fixture(scope="module")
def demo() -> PreparedCorpus:
    return prepare_corpus(DEMO, PrepareParams(), 13)


def test_size(demo: PreparedCorpus) -> None:
    assert demo.summary.documents >= 100
    assert demo.summary.questions >= 600
    assert demo.summary.unanswerable >= 50
    assert demo.summary.ignored == ()


def test_documents_have_80_to_200_words(demo: PreparedCorpus) -> None:
    lengths = {
        item.document_id: len(item.text.removeprefix(item.title).split()) for item in demo.documents
    }
    assert {name: n for name, n in lengths.items() if not 80 <= n <= 200} == {}


def test_every_document_is_markdown_with_a_title(demo: PreparedCorpus) -> None:
    for item in demo.documents:
        text = (DEMO / "documents" / item.document_id).read_text(encoding="utf-8")
        assert text.startswith(f"# {item.title}\n")
    assert len({item.title for item in demo.documents}) == len(demo.documents)


def test_no_sentence_occurs_twice(demo: PreparedCorpus) -> None:
    sentences = Counter(
        " ".join(words(sentence.casefold()))
        for item in demo.documents
        for sentence in re.split(r"(?<=[.!?])\s+", item.text.removeprefix(item.title).strip())
    )
    assert [sentence for sentence, count in sentences.items() if count > 1] == []


def test_no_five_words_open_or_fill_many_questions(demo: PreparedCorpus) -> None:
    grams: Counter[tuple[str, ...]] = Counter()
    for question in demo.questions:
        own = words(question.text.casefold())
        grams.update({tuple(own[n : n + 5]) for n in range(len(own) - 4)})
    limit = 0.03 * len(demo.questions)
    assert {" ".join(gram): n for gram, n in grams.items() if n > limit} == {}


def test_every_answer_is_a_short_span_of_its_document(demo: PreparedCorpus) -> None:
    texts = {
        item.document_id: (DEMO / "documents" / item.document_id).read_text(encoding="utf-8")
        for item in demo.documents
    }
    for question in demo.questions:
        assert bool(question.answers) == question.answerable == (question.document_id is not None)
        for answer in question.answers:
            assert answer in texts[str(question.document_id)], question.question_id
            assert len(answer.split()) <= 8, question.question_id


def test_no_document_lacks_questions(demo: PreparedCorpus) -> None:
    asked = Counter(question.document_id for question in demo.questions)
    assert all(asked[item.document_id] >= 5 for item in demo.documents)


def test_no_withheld_answer_is_in_the_corpus(demo: PreparedCorpus) -> None:
    withheld = json.loads(WITHHELD.read_text(encoding="utf-8"))
    unanswerable = {item.question_id for item in demo.questions if not item.answerable}
    assert set(withheld) == unanswerable
    everything = "\n".join(item.text for item in demo.documents).casefold()
    assert [key for key, answer in withheld.items() if answer.casefold() in everything] == []


def test_the_test_split_has_the_questions_that_the_verdict_needs(demo: PreparedCorpus) -> None:
    documents = {split: set[str | None]() for split in ("train", "dev", "test")}
    for question in demo.questions:
        documents[question.split].add(question.document_id)
    assert not (documents["train"] | documents["dev"]) & documents["test"] - {None}
    assert sum(question.split == "test" for question in demo.questions) >= 150
    assert demo.rejects == ()
