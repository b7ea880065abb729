"""How long metrics.json takes: every metric, interval and slice of an evaluation, on one core.

    python benchmarks/summary_speed.py [--questions 302] [--systems 4] [--documents 40]

The answers are made up from a seed, over documents of several folders and questions of several
kinds, so that there are about forty slices; the work is that of the evaluate stage.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

from rag.evaluation.attribution import label_errors
from rag.evaluation.scoring import prediction_rows
from rag.evaluation.slices import SliceSettings
from rag.evaluation.summary import evaluation_metrics, metrics_text
from rag.records import PREDICTIONS, Answer, Evidence, Passage, Question, to_table

_ASKED = ("Who", "When", "Where", "What", "Which ship", "How many", "How much", "How", "Why", "Is")
_WORDS = ("sea", "eagle", "petrel", "harbour", "line", "captain", "twelve", "2019", "quay", "may")
_BASELINES = ("zero_shot", "one_shot", "closed_book")


def main() -> None:
    """Prints the CPU seconds of each part."""
    options = _options()
    draw = random.Random(13)
    questions = [_question(i, options.documents, draw) for i in range(options.questions)]
    started = time.process_time()
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ("tuned", *_BASELINES)[: options.systems]:
        passages = [_passages(question, draw) for question in questions]
        answers = [
            _answer(question, found, 0.7 if name == "tuned" else 0.3, draw)
            for question, found in zip(questions, passages, strict=True)
        ]
        retrieved = None if name == "closed_book" else passages
        rows[name] = prediction_rows(name, questions, answers, retrieved=retrieved)
    others = {
        name: {row["question_id"]: row for row in of}
        for name, of in rows.items()
        if name != "tuned"
    }
    rows["tuned"] = label_errors(rows["tuned"], {}, others)
    scored = time.process_time()
    table = to_table([row for of in rows.values() for row in of], PREDICTIONS)
    metrics = evaluation_metrics(
        table,
        resamples=options.resamples,
        confidence=0.95,
        seed=13,
        slices=SliceSettings(30, 20),
    )
    text = metrics_text(metrics)
    done = time.process_time()
    values = sum(map(len, metrics["slices"].values()))
    print(f"{options.questions} questions, {options.systems} systems, {values} slices")
    print(f"{options.resamples} resamples: scoring {scored - started:.1f} s of CPU, ", end="")
    print(f"summary {done - scored:.1f} s of CPU, metrics.json {len(text) / 1000:.0f} kB")


def _question(number: int, documents: int, draw: random.Random) -> Question:
    document = draw.randrange(documents)
    answerable = draw.random() < 0.9
    answers = tuple(" ".join(draw.choices(_WORDS, k=draw.choice((1, 2, 3, 5, 9)))) for _ in "ab")
    return Question(
        f"q{number:05}",
        f"{draw.choice(_ASKED)} is number {number}?",
        answers if answerable else (),
        f"folder{document % 6}/d{document}.md",
        answerable,
        "test",
        "en",
        {"level": draw.choice(("easy", "hard", "expert")), "kind": draw.choice("abcdefgh")},
    )


def _passages(question: Question, draw: random.Random) -> list[Passage]:
    gold = draw.choice((1, 1, 1, 2, 3, 5, 9))
    own = f"It is {question.answers[0]}." if question.answers else "Nobody knows."
    return [
        Passage(
            f"{question.question_id}-{rank}",
            str(question.document_id),
            own if rank == gold else "The ferry sails at noon.",
            1.0 / rank,
            rank,
        )
        for rank in range(1, 6)
    ]


def _answer(
    question: Question, passages: list[Passage], skill: float, draw: random.Random
) -> Answer:
    right = draw.random() < skill
    text = question.answers[0] if right and question.answers else ""
    if not right:
        text = " ".join(draw.choices(_WORDS, k=draw.choice((1, 2, 4))))
    found = passages[0]
    read = Evidence(found.chunk_id, found.document_id, found.text, found.score, found.rank)
    return Answer(text, -draw.random(), not text, (read,))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--questions", type=int, default=302)
    parser.add_argument("--systems", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--resamples", type=int, default=10_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
