"""The prepare stage's work: a corpus read, validated and split, or a list of all that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.corpus.problems import Problem
from rag.corpus.questions import RawQuestion
from rag.corpus.reader import CorpusSummary, RawCorpus, read_corpus, summarize_corpus
from rag.corpus.splits import SplitQuestions, split_questions
from rag.corpus.text import language_of
from rag.errors import DataError
from rag.params import PrepareParams
from rag.records import SPLITS, Document, Question, Split


@dataclass(frozen=True)
class PrepareSummary(CorpusSummary):
    """What was prepared. The counts below explain every question that is in no split."""

    groups: Mapping[Split, int] | None = None
    split_questions: Mapping[Split, int] | None = None
    near_duplicate_documents: int = 0
    repeated_questions: int = 0
    withdrawn_questions: int = 0
    left_out_questions: int = 0
    rejected_rows: int = 0


@dataclass(frozen=True)
class PreparedCorpus:
    """Documents and questions sorted by id, the rows set aside, and the counts of all of them."""

    documents: tuple[Document, ...]
    questions: tuple[Question, ...]
    rejects: tuple[dict[str, Any], ...]
    summary: PrepareSummary


def prepare_corpus(root: Path, params: PrepareParams, seed: int) -> PreparedCorpus:
    """Reads and splits the corpus below `root`.

    Raises DataError with every problem when `params.strict`; else the bad rows become `rejects`,
    and only a corpus that has no documents or no questions left is an error.
    """
    corpus = read_corpus(root)
    nothing_left = not corpus.documents or not corpus.questions
    if corpus.problems and (params.strict or nothing_left):
        hint = (
            ""
            if nothing_left
            else "correct the files, or set prepare.strict=false to set bad rows aside"
        )
        raise DataError([str(problem) for problem in corpus.problems], hint=hint)
    split = split_questions(corpus.documents, corpus.questions, params, seed)
    withdrawn = [
        Problem(item.file, item.line, "the same question is asked in a later split", item.row)
        for item in split.withdrawn
    ]
    rejects = [problem.reject() for problem in (*corpus.problems, *withdrawn)]
    questions = [_question(item, name) for name in SPLITS for item in split.questions[name]]
    return PreparedCorpus(
        documents=corpus.documents,
        questions=tuple(sorted(questions, key=lambda question: question.question_id)),
        rejects=tuple(rejects),
        summary=_summary(corpus, split),
    )


def _question(raw: RawQuestion, split: Split) -> Question:
    return Question(
        question_id=raw.question_id,
        text=raw.text,
        answers=raw.answers,
        document_id=raw.document_id,
        answerable=raw.answerable,
        split=split,
        language=language_of(raw.text),
        slices=raw.slices,
    )


def _summary(corpus: RawCorpus, split: SplitQuestions) -> PrepareSummary:
    return PrepareSummary(
        **vars(summarize_corpus(corpus)),
        groups=split.groups,
        split_questions={name: len(split.questions[name]) for name in SPLITS},
        near_duplicate_documents=split.near_duplicates,
        repeated_questions=split.repeated,
        withdrawn_questions=len(split.withdrawn),
        left_out_questions=sum(split.left_out.values()),
        rejected_rows=len(corpus.problems),
    )
