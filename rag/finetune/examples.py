"""What a reader learns from: questions with the passages that retrieval really gave."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rag.errors import TrainingError
from rag.reading.abstention import AnswerScore
from rag.reading.prompts import Example
from rag.records import Answer, Chunk, Passage, Question
from rag.retrieval.relevance import contains, has_gold, is_relevant

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
    *,
    withheld_share: float = 0.0,
    seed: int = 0,
) -> list[ReadingExample]:
    """Training examples over `count` passages a question.

    Passages are the retrieved ones, so the reader learns from the mistakes it will meet. Where
    retrieval missed the gold passage, it takes the place of the last one, with that one's score: a
    reader trained to refuse because of every retrieval miss learns to refuse too often. Refusal is
    learnt from the unanswerable questions, whose passages are the hardest distractors there are,
    and from a share of the others, drawn by `seed`, from which every passage that answers is
    withheld.
    """
    generator = random.Random(seed)
    examples = []
    for question in questions:
        found = passages[question.question_id]
        shown = list(found[:count])
        answer = question.answers[0] if question.answerable else ""
        withheld = generator.random() < withheld_share
        if question.answerable and question.question_id in gold:
            wanted = gold[question.question_id]
            if withheld:
                shown = [
                    passage
                    for passage in found
                    if not is_relevant(passage.text, passage.document_id, question)
                ][:count]
                answer = "" if shown else answer
            if not withheld or not shown:
                shown = _with_gold(found[:count], wanted, count)
        examples.append(ReadingExample(question, tuple(shown), answer))
    return examples


def _with_gold(found: Sequence[Passage], wanted: Passage, count: int) -> list[Passage]:
    """The passages found, the last of them replaced by the gold one where that is missing."""
    if wanted.chunk_id in {passage.chunk_id for passage in found}:
        return list(found)
    kept = list(found[: count - 1])
    replaced = found[len(kept)] if len(found) > len(kept) else (found or [wanted])[-1]
    return [*kept, replace(wanted, rank=len(kept) + 1, score=replaced.score)]


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


def choose_examples(
    questions: Sequence[Question], gold: Mapping[str, Passage], count: int, seed: int
) -> list[Example]:
    """At most `count` worked examples for prompts, each from another document; equal for a seed.

    They are drawn from the shorter half of the gold passages, because every prompt pays for their
    length; from longer ones only where there are too few documents. The answer is the first one
    that stands in the passage as the reader is told to give it.
    """
    generator = random.Random(seed)
    known = [question for question in questions if question.question_id in gold]
    one_each = {gold[item.question_id].document_id: item for item in _shuffled(known, generator)}
    by_length = sorted(
        one_each.values(), key=lambda item: (len(gold[item.question_id].text), item.question_id)
    )
    short = by_length[: max(count, len(by_length) // 2)]
    examples = []
    for item in _shuffled(short, generator)[:count]:
        text = gold[item.question_id].text
        answer = next(answer for answer in item.answers if contains(text, answer))
        examples.append(Example(item.text, (text,), answer))
    return examples


def _shuffled(items: Sequence[Item], generator: random.Random) -> list[Item]:
    return generator.sample(items, len(items))


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


@dataclass(frozen=True)
class JudgedPassages:
    """The passages read for N answerable questions; `scores[i]` and `right[i]` are (K_i,)."""

    examples: Sequence[ReadingExample]
    scores: Sequence[npt.NDArray[np.float64]]
    right: Sequence[npt.NDArray[np.bool_]]


def judged_passages(examples: Sequence[ReadingExample], count: int) -> JudgedPassages:
    """The first `count` passages of every question that has a right one, with their scores."""
    kept = [
        replace(example, passages=example.passages[:count])
        for example in examples
        if has_gold(example.question) and example.passages
    ]
    return JudgedPassages(
        kept,
        [np.array([passage.score for passage in example.passages]) for example in kept],
        [
            np.array(
                [is_relevant(p.text, p.document_id, example.question) for p in example.passages]
            )
            for example in kept
        ],
    )


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items, evenly from first to last: questions lie in the order of documents."""
    step = max(1.0, len(items) / count)
    return [items[int(i * step)] for i in range(min(count, len(items)))]
