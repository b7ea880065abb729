"""What people said of served answers: right, wrong, or what the answer should have been.

    .ragloop/feedback.jsonl              one verdict a line; none is ever removed

A correction with its document is a labelled question: `labelled_questions` gives it in the form in
which questions are taken in.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rag.artifacts import Artifacts
from rag.corpus.text import normalized_question
from rag.monitoring import bounded_log
from rag.records import read_chunks

_ID_LENGTH = 16


@dataclass(frozen=True)
class Feedback:
    """One verdict. `answer` is a correction; `document_id` says where it is found."""

    time: str
    question: str
    right: bool
    query_id: str | None = None
    answer: str | None = None
    document_id: str | None = None

    @property
    def is_labelled(self) -> bool:
        return bool(self.answer and self.document_id)


def add_feedback(artifacts: Artifacts, feedback: Feedback) -> None:
    """Appends one verdict."""
    bounded_log.append(artifacts.feedback, [asdict(feedback)], sys.maxsize)


def read_feedback(artifacts: Artifacts) -> list[Feedback]:
    """Every verdict, oldest first."""
    return [Feedback(**row) for row in bounded_log.read(artifacts.feedback)]


def labelled_questions(rows: Sequence[Feedback]) -> dict[str, dict[str, Any]]:
    """Corrections as rows of a question file, by id; of several for one question the last."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.is_labelled:
            text = normalized_question(row.question)
            key = f"feedback-{hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]}"
            found[key] = {
                "id": key,
                "question": row.question,
                "answers": [row.answer],
                "document": row.document_id,
                "source": "feedback",
            }
    return found


def document_with(artifacts: Artifacts, answer: str, query: Mapping[str, Any] | None) -> str | None:
    """The first document shown for a logged query whose text has the answer; None without one."""
    shown = list(query["documents"]) if query else []
    if not shown or not artifacts.chunks.is_file():
        return None
    wanted = " ".join(answer.casefold().split())
    having = {
        chunk.document_id
        for chunk in read_chunks(artifacts.chunks, document_ids=shown)
        if wanted in " ".join(chunk.text.casefold().split())
    }
    return next((document for document in shown if document in having), None)
