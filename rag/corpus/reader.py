"""A corpus from its files: documents, questions, and every problem in them, found in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.corpus.documents import read_document
from rag.corpus.files import DOCUMENT_SUFFIXES, QUESTION_SUFFIXES, CorpusFile, find_files
from rag.corpus.problems import Problem, Unreadable
from rag.corpus.questions import RawQuestion, read_questions
from rag.corpus.squad import read_squad
from rag.corpus.text import words
from rag.corpus.validation import check_documents, check_questions
from rag.errors import DataError
from rag.records import Document


@dataclass(frozen=True)
class RawCorpus:
    """What is good in a corpus, and what is not. Documents and questions are sorted by id.

    `ignored` names the files that are of no kind that is read (images, a README beside
    `documents/`).
    """

    documents: tuple[Document, ...]
    questions: tuple[RawQuestion, ...]
    problems: tuple[Problem, ...]
    files: tuple[CorpusFile, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class CorpusSummary:
    """What a corpus holds. `languages` counts documents; a Chinese character is a word."""

    documents: int
    questions: int
    answerable: int
    unanswerable: int
    languages: Mapping[str, int]
    words: int
    ignored: tuple[str, ...] = ()


def read_corpus(root: Path) -> RawCorpus:
    """Reads a file or folder whole and compares questions with documents.

    `documents` and `questions` hold what is good; `problems` says what is wrong with everything
    else, an absence of documents or questions included. Raises DataError only where `root` does
    not exist.
    """
    if not root.exists():
        raise DataError(
            f"{root}: no such file or folder",
            hint="give a folder of documents and question files, or one SQuAD JSON file",
        )
    files, ignored = find_files(root)
    documents: list[tuple[CorpusFile, Document]] = []
    questions: list[RawQuestion] = []
    problems: list[Problem] = []
    for file in files:
        try:
            if file.document_id is not None:
                documents.append((file, read_document(file)))
            elif file.suffix == ".json":
                found, asked, faults = read_squad(file)
                documents += [(file, document) for document in found]
                questions += asked
                problems += faults
            else:
                asked, faults = read_questions(file)
                questions += asked
                problems += faults
        except Unreadable as error:
            problems.append(Problem(file.name, error.line, error.reason))
    kept_documents, faults = check_documents(documents)
    problems += faults
    kept_questions, faults = check_questions(questions, kept_documents)
    problems += faults
    problems.sort(key=lambda item: (item.file, item.line or 0))
    return RawCorpus(
        documents=tuple(sorted(kept_documents, key=lambda document: document.document_id)),
        questions=tuple(sorted(kept_questions, key=lambda question: question.question_id)),
        problems=(*problems, *_absences(root, kept_documents, kept_questions)),
        files=tuple(files),
        ignored=tuple(ignored),
    )


def _absences(
    root: Path, documents: Sequence[Document], questions: Sequence[RawQuestion]
) -> list[Problem]:
    problems = []
    if not documents:
        kinds = " ".join((*DOCUMENT_SUFFIXES, ".json (SQuAD)"))
        problems.append(Problem(root.name, None, f"no usable documents found ({kinds})"))
    if not questions:
        kinds = " ".join(QUESTION_SUFFIXES)
        problems.append(Problem(root.name, None, f"no usable questions found ({kinds})"))
    return problems


def summarize_corpus(corpus: RawCorpus) -> CorpusSummary:
    """Counts what is good in a corpus."""
    answerable = sum(question.answerable for question in corpus.questions)
    languages = Counter(document.language for document in corpus.documents)
    return CorpusSummary(
        documents=len(corpus.documents),
        questions=len(corpus.questions),
        answerable=answerable,
        unanswerable=len(corpus.questions) - answerable,
        languages=dict(sorted(languages.items())),
        words=sum(len(words(document.text)) for document in corpus.documents),
        ignored=corpus.ignored,
    )
