"""`ragloop feedback`: one verdict about a served answer, kept for the triggers and for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from flows import terminal
from rag.artifacts import Artifacts
from rag.corpus.text import normalized_question
from rag.errors import DataError
from rag.monitoring.feedback import Feedback, add_feedback, document_with
from rag.monitoring.query_log import is_query_id, read_queries


def give(
    artifacts: Artifacts,
    question: str,
    *,
    right: bool,
    answer: str | None = None,
    document: str | None = None,
) -> dict[str, Any]:
    """Keeps a verdict about a logged query (by id or text) or any question; returns its row.

    A correction (`answer`) names the document that it is found in: `document`, or the first one
    that was shown for the query and has its text. Without one it is a verdict, but no labelled
    question. DataError for an unknown id or document, or an empty text.
    """
    query = _logged(artifacts, question)
    text = str(query["question"]) if query else question.strip()
    if not text:
        raise DataError("the question is empty")
    if answer is not None and not answer.strip():
        raise DataError("--answer is empty", hint="without a better answer: --wrong")
    if document is not None:
        _check_document(artifacts, document)
    elif answer is not None:
        document = document_with(artifacts, answer, query)
    feedback = Feedback(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        question=text,
        right=right,
        query_id=str(query["id"]) if query else None,
        answer=answer.strip() if answer else None,
        document_id=document,
    )
    add_feedback(artifacts, feedback)
    return {**asdict(feedback), "labelled": feedback.is_labelled}


def print_given(given: Mapping[str, Any]) -> None:
    """What was kept, and what is missing to train on it."""
    from rich.markup import escape

    console = terminal.result_console()
    verdict = "right" if given["right"] else "wrong"
    console.print(f"kept: {verdict}, {escape(given['question'])}", soft_wrap=True)
    if given["labelled"]:
        console.print(f"a labelled question of {escape(given['document_id'])}", soft_wrap=True)
    elif given["answer"]:
        console.print("no labelled question: no shown document has this text; add --document ID")


def _logged(artifacts: Artifacts, question: str) -> dict[str, Any] | None:
    """The newest logged query of this id or text."""
    rows = read_queries(artifacts)
    if is_query_id(question):
        found = [row for row in rows if row["id"] == question]
        if not found:
            raise DataError(
                f"no logged query {question}", hint="give the question's text: older ones are gone"
            )
        return found[-1]
    wanted = normalized_question(question)
    alike = [row for row in rows if normalized_question(row["question"]) == wanted]
    return alike[-1] if alike else None


def _check_document(artifacts: Artifacts, document: str) -> None:
    if not artifacts.documents.is_file():
        raise DataError("there are no documents here yet", hint="make them with: ragloop run")
    from pyarrow.parquet import read_table

    known = read_table(artifacts.documents, columns=["document_id"])["document_id"].to_pylist()
    if document not in set(known):
        raise DataError(f"--document {document}: there is no such document")
