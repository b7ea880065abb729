"""What a reader learns from: questions with the passages that retrieval really gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rag.errors import TrainingError
from rag.reading.abstention import AnswerScore
from rag.records import Answer, Chunk, Passage, Question
from rag.retrieval.relevance import has_gold, is_relevant

Item = TypeVar("Item")


@dataclass(frozen=True)
class ReadingExample:
    """A question with the passages that the reader will see, best first."""

    question: Question
    passages: tuple[Passage, ...]
    target: str
    """The answer to learn; empty where the right thing to do is to abstain."""


def reading_examples(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[Passage]],
    gold: Mapping[str, Passage],
    count: int,
) -> list[ReadingExample]:
    """Training examples over `count` passages a question.

    Passages are the retrieved ones, so the reader learns from the mistakes it will meet. Where
    retrieval missed the gold passage, it takes the place of the last one: a reader trained to
    refuse because of a retrieval miss learns to refuse too often. Refusal is learnt from the
    unanswerable questions, whose passages are the hardest distractors there are.
    """
    examples = []
    for question in questions:
        shown = list(passages[question.question_id][:count])
        answer = question.answers[0] if question.answerable else ""
        if question.answerable and question.question_id in gold:
            wanted = gold[question.question_id]
            if wanted.chunk_id not in {passage.chunk_id for passage in shown}:
                shown = [*shown[: count - 1], wanted]
        examples.append(ReadingExample(question, tuple(shown), answer))
    return examples


def gold_passages(questions: Sequence[Question], chunks: Sequence[Chunk]) -> dict[str, Passage]:
    """By question id, the first chunk of the gold document that holds an answer."""
    by_document: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        by_document.setdefault(chunk.document_id, []).append(chunk)
    found = {}
    for question in questions:
        if not has_gold(question) or question.document_id is None:
            continue
        for chunk in by_document.get(question.document_id, ()):
            if is_relevant(chunk.text, chunk.document_id, question):
                found[question.question_id] = as_passage(chunk, rank=1, score=1.0)
                break
    return found


def as_passage(chunk: Chunk, *, rank: int, score: float) -> Passage:
    """A chunk in the role of a passage."""
    return Passage(chunk.chunk_id, chunk.document_id, chunk.text, score, rank)


def dev_metrics(
    answers: Sequence[Answer],
    examples: Sequence[ReadingExample],
    scores: Mapping[str, AnswerScore],
) -> dict[str, float]:
    """`dev_<name>` in percent for each score, over the examples' accepted answers."""
    if not examples:
        raise TrainingError("no dev questions: raise prepare.dev_share or add questions")
    pairs = list(zip(answers, examples, strict=True))
    return {
        f"dev_{name}": 100.0
        * sum(score(answer.text, example.question.answers) for answer, example in pairs)
        / len(pairs)
        for name, score in scores.items()
    }


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items, evenly from first to last: questions lie in the order of documents."""
    step = max(1.0, len(items) / count)
    return [items[int(i * step)] for i in range(min(count, len(items)))]
