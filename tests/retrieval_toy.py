"""A corpus of 32 passages, whose questions use words of their own.

A question says 北 where its passage says north: what the random encoder cannot know, and what a few
steps teach it for subjects that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from rag.artifacts import Artifacts
from rag.params import Params
from rag.records import CHUNKS, QUESTIONS, Chunk, Question, to_table, write_table
from tests.toy import toy_params

SUBJECTS = [" ".join(pair) for pair in product(("red", "blue"), ("boat", "sea", "captain", "what"))]
PLACES = {"north": "北", "south": "京", "port": "港", "noon": "who"}
UNSEEN = ("red captain", "blue sea")


def retrieval_params(model: Path, mode: str, *overrides: str) -> Params:
    """A few seconds of training."""
    return toy_params(
        f"retriever.model={model}",
        f"retriever.mode={mode}",
        "retriever.max_tokens=64",
        "chunk.max_chunk_tokens=64",
        "retriever.training.learning_rate=0.003",
        "retriever.training.epochs=8",
        "retriever.training.batch_questions=8",
        "retriever.training.evaluations=4",
        "retriever.training.patience=null",
        "retriever.training.precision=float32",
        "retriever.training.mining_candidates=8",
        *overrides,
    )


def questions() -> Iterator[Question]:
    for number, (subject, (place, word)) in enumerate(product(SUBJECTS, PLACES.items())):
        split: Any = "dev" if subject in UNSEEN else "train"
        for order, text in enumerate((f"who sails {subject} {word} ?", f"{word} {subject}")):
            yield Question(
                f"q{number}-{order}", text, (place,), f"d{number}", True, split, "en", {}
            )


def write_retrieval_project(root: Path, changed: Mapping[str, Any] | None = None) -> Artifacts:
    """What the stage reads; `changed` gives other values to questions, by their id."""
    artifacts = Artifacts(root)
    chunks = [
        Chunk(f"{number:016x}", f"d{number}", 0, f"the {subject} is at {place}", 7)
        for number, (subject, place) in enumerate(product(SUBJECTS, PLACES))
    ]
    write_table(chunks, CHUNKS, artifacts.chunks)
    rows = [
        row | (changed or {}).get(row["question_id"], {})
        for row in to_table(questions(), QUESTIONS).to_pylist()
    ]
    write_table(rows, QUESTIONS, artifacts.questions)
    return artifacts


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
