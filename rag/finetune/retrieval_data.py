"""What the retriever learns from: questions, the rows of their passages, and the corpus' texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rag.artifacts import Artifacts
from rag.errors import TrainingError
from rag.finetune.examples import evenly
from rag.finetune.negatives import RetrievalExample
from rag.records import Chunk, Question, iter_chunk_texts, iter_chunks, read_questions
from rag.retrieval.relevance import has_gold, is_relevant

#: The slice of questions that a model wrote; they train and never measure.
SYNTHETIC = "synthetic"
#: Below these a result says little, and the report says so.
FEW_TRAIN, FEW_DEV = 32, 20


@dataclass(frozen=True)
class RetrievalData:
    """Questions that have a passage to find, and what became of the others."""

    train: list[RetrievalExample]
    dev: list[RetrievalExample]
    counts: Mapping[str, int]

    def caveats(self) -> list[str]:
        """What a reader of the result should know of its basis."""
        found = []
        if len(self.train) < FEW_TRAIN:
            found.append(f"trained on {len(self.train)} questions only")
        if len(self.dev) < FEW_DEV:
            found.append(f"chosen on {len(self.dev)} dev questions only: a gain may be chance")
        return found


def retrieval_data(artifacts: Artifacts, dev_questions: int) -> RetrievalData:
    """Train questions and at most `dev_questions` dev questions with the rows that answer them.

    A row is a position in the chunk table. Synthetic questions are left out of dev. Raises
    TrainingError where a split has no question with a gold passage.
    """
    train = [item for item in read_questions(artifacts.questions, "train") if has_gold(item)]
    all_dev = [item for item in read_questions(artifacts.questions, "dev") if has_gold(item)]
    dev = [question for question in all_dev if not _is_synthetic(question)]
    documents = {question.document_id for question in (*train, *dev)}
    by_document: dict[str | None, list[tuple[int, Chunk]]] = {}
    row = 0
    for batch in iter_chunks(artifacts.chunks):
        for chunk in batch:
            if chunk.document_id in documents:
                by_document.setdefault(chunk.document_id, []).append((row, chunk))
            row += 1
    train_examples = _examples(train, by_document)
    dev_examples = _examples(dev, by_document)
    for split, found, asked in (("train", train_examples, train), ("dev", dev_examples, dev)):
        if not found:
            raise TrainingError(
                f"{len(asked)} answerable {split} questions, none with a passage of its document "
                "that holds an answer; add questions that name their document, or set "
                "retriever.mode to none"
            )
    chosen = evenly(dev_examples, dev_questions)
    counts = {
        "train": len(train_examples),
        "train_synthetic": sum(_is_synthetic(example.question) for example in train_examples),
        "train_without_gold": len(train) - len(train_examples),
        "dev": len(chosen),
        "dev_synthetic_left_out": len(all_dev) - len(dev),
        "dev_without_gold": len(dev) - len(dev_examples),
    }
    return RetrievalData(train_examples, chosen, counts)


def _is_synthetic(question: Question) -> bool:
    return question.slices.get(SYNTHETIC) is True


def _examples(
    questions: Iterable[Question], by_document: Mapping[str | None, list[tuple[int, Chunk]]]
) -> list[RetrievalExample]:
    examples = []
    for question in questions:
        if question.document_id is None:
            continue
        rows = [
            row
            for row, chunk in by_document.get(question.document_id, ())
            if is_relevant(chunk.text, chunk.document_id, question)
        ]
        if rows:
            examples.append(RetrievalExample(question, rows[0], frozenset(rows)))
    return examples


@dataclass(frozen=True)
class CorpusTexts:
    """The texts of the chunk table, read from disk each time they are asked for."""

    path: Path

    def all(self) -> Iterator[str]:
        """Every text, in the order of rows."""
        for batch in iter_chunk_texts(self.path):
            yield from batch

    def of(self, rows: Iterable[int]) -> dict[int, str]:
        """The texts of these rows alone."""
        wanted = set(rows)
        return {row: text for row, text in enumerate(self.all()) if row in wanted}
