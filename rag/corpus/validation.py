"""What must hold between documents and questions; what does not is set aside with its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from rag.corpus.files import CorpusFile
from rag.corpus.problems import Problem
from rag.corpus.questions import RawQuestion
from rag.records import Document


def check_documents(
    read: Iterable[tuple[CorpusFile, Document]],
) -> tuple[list[Document], list[Problem]]:
    """Keeps the first document of each id; ids that differ only in case count as the same."""
    kept: dict[str, tuple[CorpusFile, Document]] = {}
    problems: list[Problem] = []
    for file, document in read:
        first = kept.setdefault(document.document_id.casefold(), (file, document))
        if first[1] is not document:
            reason = _duplicate("document", document.document_id, first[1].document_id)
            row = {"document": document.document_id}
            problems.append(Problem(file.name, None, f"{reason} (first in {first[0].name})", row))
    return [document for _, document in kept.values()], problems


def check_questions(
    questions: Iterable[RawQuestion], documents: Sequence[Document]
) -> tuple[list[RawQuestion], list[Problem]]:
    """Keeps questions with an id of their own, a known document, and answers found in it."""
    texts = {document.document_id: document.text for document in documents}
    by_name: dict[str, list[str]] = defaultdict(list)
    for document_id in texts:
        by_name[PurePosixPath(document_id.casefold()).stem].append(document_id)
    first: dict[str, RawQuestion] = {}
    kept: list[RawQuestion] = []
    problems: list[Problem] = []
    for question in questions:
        reasons: list[str] = []
        earlier = first.setdefault(question.question_id.casefold(), question)
        if earlier is not question:
            place = Problem(earlier.file, earlier.line, "")
            reason = _duplicate("question", question.question_id, earlier.question_id)
            reasons.append(f"{reason} (first at {str(place).removesuffix(': ')})")
        if question.document_id is not None:
            text = texts.get(question.document_id)
            if text is None:
                near = by_name[PurePosixPath(question.document_id.casefold()).stem]
                help_ = f"; did you mean {near[0]!r}?" if len(near) == 1 else ""
                reasons.append(f"unknown document {question.document_id!r}{help_}")
            else:
                reasons += _lost_answers(question, text)
        if reasons:
            problems += [
                Problem(question.file, question.line, reason, question.row) for reason in reasons
            ]
        else:
            kept.append(question)
    return kept, problems


def _lost_answers(question: RawQuestion, text: str) -> list[str]:
    reasons = []
    for answer in question.answers:
        if answer not in text:
            at = text.lower().find(answer.lower())
            same = text[at : at + len(answer)] if at >= 0 else ""
            spelled = f" (it has {same!r})" if same.lower() == answer.lower() else ""
            reasons.append(
                f"answer {answer!r} is not in document {question.document_id!r}{spelled}"
            )
    return reasons


def _duplicate(kind: str, name: str, first: str) -> str:
    if name == first:
        return f"{kind} id {name!r} occurs twice"
    return f"{kind} id {name!r} differs from {first!r} only in case"
