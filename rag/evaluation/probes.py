"""What the tuned system says to a question that it answered wrongly, when shown other passages.

The answers tell errors of retrieval from errors of reading; `attribution` says how. Only wrong
answers to answerable questions are asked again, so probing costs no more than the errors do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rag.evaluation.attribution import NO_PASSAGE, ORACLE, ORACLE_RERANK, gold_first
from rag.evaluation.metric_groups import Row
from rag.evaluation.scoring import prediction_rows
from rag.progress import progress
from rag.reading.answerer import QuestionAnswerer
from rag.records import Passage, Question
from rag.retrieval.relevance import is_relevant


def ask_again(
    answerer: QuestionAnswerer,
    questions: Sequence[Question],
    rows: Sequence[Row],
    gold: Mapping[str, Passage],
    *,
    top_k: int,
) -> list[dict[str, Any]]:
    """Rows of `records.PREDICTIONS` of each probe, for the questions that it could be asked.

    `rows` are the answers of the tuned system to `questions`, in their order; `gold` has by
    question id a passage that holds an answer. For a question without a document that is the first
    such passage among the `top_k` retrieved. `oracle_rerank` is asked where the first relevant
    passage was retrieved below rank 1: at rank 1 it would say what the tuned system said.
    """
    wrong = [
        question
        for question, row in zip(questions, rows, strict=True)
        if question.answerable and row["exact_match"] != 1.0
    ]
    if not wrong:
        return []
    found = answerer.search([question.text for question in wrong], top_k)
    shown: dict[str, dict[str, list[Passage]]] = {ORACLE: {}, ORACLE_RERANK: {}, NO_PASSAGE: {}}
    for question, passages in zip(wrong, found, strict=True):
        rank = first_relevant(passages, question)
        if question.question_id in gold:
            shown[ORACLE][question.question_id] = [gold[question.question_id]]
        elif question.document_id is None and rank is not None:
            shown[ORACLE][question.question_id] = gold_first(passages, rank)[:1]
        if rank is not None and rank > 1:
            shown[ORACLE_RERANK][question.question_id] = gold_first(passages, rank)
        shown[NO_PASSAGE][question.question_id] = []
    answered: list[dict[str, Any]] = []
    with progress("attribution", sum(map(len, shown.values()))) as advance:
        for probe, given in shown.items():
            # Without a passage no answer is supported by one: the check would decline them all.
            asked = answerer.unchecked() if probe == NO_PASSAGE else answerer
            chosen = [question for question in wrong if question.question_id in given]
            if not chosen:
                continue
            responses = asked.respond(
                [question.text for question in chosen],
                given={place: given[item.question_id] for place, item in enumerate(chosen)},
                progress=advance,
            )
            answered += prediction_rows(
                probe,
                chosen,
                [response.answer for response in responses],
                retrieved=given,
                score_retrieval=False,
            )
    return answered


def first_relevant(passages: Sequence[Passage], question: Question) -> int | None:
    """The rank of the first passage that holds an answer, None where none does."""
    for passage in passages:
        if is_relevant(passage.text, passage.document_id, question):
            return passage.rank
    return None
