"""Hard negatives: passages that look right and are not, from dense and from BM25 search.

A passage that answers a question must not be learnt as wrong. Left out are, in this order: passages
that are relevant by their document and answer; passages about as close to the question as the gold
one, in which an answer may well stand that nobody marked (relative margin; Moreira et al. 2024,
NV-Retriever); and passages of any document that contain the answer (Karpukhin et al. 2020, DPR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.records import Question
from rag.retrieval.bm25 import Bm25Encoder, SparseVector
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.relevance import contains

Rows = npt.NDArray[np.int64]
Texts = Callable[[], Iterable[str]]
"""All passage texts in the order of the vectors; called once for each pass over them."""

#: Negatives kept for each question; epochs take them in turn, hardest first.
KEPT = 8
_BLOCK_ROWS = 8192
_BLOCK_QUERIES = 1024


@dataclass(frozen=True)
class RetrievalExample:
    """A question, the row of the passage to find, and the rows that must not count as wrong."""

    question: Question
    gold: int
    relevant: frozenset[int]
    """All rows that answer the question, `gold` among them."""


@dataclass
class MiningCounts:
    """What became of the candidates."""

    candidates: int = 0
    relevant: int = 0
    within_margin: int = 0
    with_answer: int = 0
    mined: int = 0
    questions_without: int = 0

    def facts(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Negatives:
    """Rows of hard negatives of each question, hardest first and at most `KEPT`."""

    rows: Sequence[tuple[int, ...]]
    counts: MiningCounts = field(default_factory=MiningCounts)

    def draw(self, example: int, epoch: int, count: int) -> tuple[int, ...]:
        """The `count` negatives that an example is shown in an epoch: all take their turn."""
        kept = self.rows[example]
        chosen = (kept[(epoch * count + i) % len(kept)] for i in range(min(count, len(kept))))
        return tuple(chosen)


def mine_negatives(
    examples: Sequence[RetrievalExample],
    queries: FloatMatrix,
    passages: FloatMatrix,
    bm25: Sequence[Rows],
    texts_of: Callable[[Iterable[int]], Mapping[int, str]],
    *,
    candidates: int,
    margin: float,
) -> Negatives:
    """Hard negatives by the vectors of the current encoder, queries (Q, D) and passages (N, D).

    `bm25[i]` are the rows that BM25 finds for question i, best first. Dense and BM25 take turns.
    """
    counts = MiningCounts()
    dense = dense_candidates(queries, passages, candidates)
    shortlists = []
    for i, (example, query) in enumerate(zip(examples, queries, strict=True)):
        turns = chain.from_iterable(zip_longest(dense[i].tolist(), bm25[i].tolist()))
        rows = [row for row in dict.fromkeys(turns) if row is not None]
        wrong = [row for row in rows if row not in example.relevant]
        limit = float(query @ passages[example.gold]) * (1.0 - margin)
        far = [row for row in wrong if float(query @ passages[row]) < limit]
        counts.candidates += len(rows)
        counts.relevant += len(rows) - len(wrong)
        counts.within_margin += len(wrong) - len(far)
        shortlists.append(far[: 2 * KEPT])
    texts = texts_of({row for rows in shortlists for row in rows})
    kept = []
    for example, rows in zip(examples, shortlists, strict=True):
        answers = example.question.answers
        wrong = [row for row in rows if not any(contains(texts[row], text) for text in answers)]
        counts.with_answer += len(rows) - len(wrong)
        kept.append(tuple(wrong[:KEPT]))
        counts.mined += len(kept[-1])
        counts.questions_without += not wrong
    return Negatives(kept, counts)


def dense_candidates(queries: FloatMatrix, passages: FloatMatrix, count: int) -> list[Rows]:
    """For each query the rows of the `count` closest passages, best first, ties by row."""
    best = _Best(len(queries), count)
    for start in range(0, len(passages), _BLOCK_ROWS):
        block = passages[start : start + _BLOCK_ROWS].T
        for first in range(0, len(queries), _BLOCK_QUERIES):
            best.take(queries[first : first + _BLOCK_QUERIES] @ block, start, first)
    return best.rows()


def bm25_candidates(questions: Sequence[str], texts: Texts, count: int) -> list[Rows]:
    """For each question the rows of the `count` best passages by BM25, best first.

    Two passes over the texts, block by block: one for the mean length and the document frequencies
    of the questions' terms, one for the scores. Passages that share no term are left out.
    """
    encoder = Bm25Encoder(Bm25Encoder.average_length(texts()))
    queries = [encoder.query(question) for question in questions]
    terms = np.unique(np.concatenate([query.indices for query in queries]))
    frequency = np.zeros(len(terms), dtype=np.int64)
    total = 0
    for block in _blocks(encoder.passages(texts())):
        weights = _matrix(block, terms)
        frequency += np.bincount(weights.indices, minlength=len(terms))
        total += len(block)
    rarity = np.log1p((total - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    wanted = _matrix(queries, terms).multiply(rarity).tocsr()
    best = _Best(len(questions), count, floor=0.0)
    start = 0
    for block in _blocks(encoder.passages(texts())):
        columns = _matrix(block, terms).T.tocsc()
        for first in range(0, len(questions), _BLOCK_QUERIES):
            scores = (wanted[first : first + _BLOCK_QUERIES] @ columns).toarray()
            best.take(scores, start, first)
        start += len(block)
    return best.rows()


class _Best:
    """The best rows of each query so far, from blocks of scores that come in the order of rows."""

    def __init__(self, queries: int, count: int, *, floor: float = -np.inf) -> None:
        self._count = count
        self._floor = floor
        self._scores = [np.empty(0, dtype=np.float32) for _ in range(queries)]
        self._rows = [np.empty(0, dtype=np.int64) for _ in range(queries)]

    def take(self, scores: npt.NDArray[np.float32], start: int, first: int) -> None:
        """Scores (Q, B) of the queries from `first` and of the passages from row `start` on."""
        size = min(self._count, scores.shape[1])
        least = np.partition(scores, -size, axis=1)[:, -size]
        for i, values in enumerate(scores):
            query = first + i
            kept = np.flatnonzero((values >= least[i]) & (values > self._floor))
            both = np.concatenate([self._scores[query], values[kept]])
            rows = np.concatenate([self._rows[query], kept + start])
            # Rows ascend among equal scores, so a stable sort leaves ties in the order of rows.
            order = np.argsort(-both, kind="stable")[: self._count]
            self._scores[query], self._rows[query] = both[order], rows[order]

    def rows(self) -> list[Rows]:
        return self._rows


def _blocks(vectors: Iterable[SparseVector]) -> Iterator[list[SparseVector]]:
    source = iter(vectors)
    while block := list(islice(source, _BLOCK_ROWS)):
        yield block


def _matrix(vectors: Sequence[SparseVector], terms: npt.NDArray[np.uint32]) -> Any:
    """A scipy CSR matrix (len(vectors), len(terms)) of the weights of these terms alone."""
    from scipy.sparse import csr_array  # type: ignore[import-untyped]

    columns, values, ends = [], [], [0]
    for vector in vectors:
        place = np.searchsorted(terms, vector.indices)
        place[place == len(terms)] = 0
        known = terms[place] == vector.indices if len(terms) else np.zeros(0, dtype=bool)
        columns.append(place[known])
        values.append(vector.values[known])
        ends.append(ends[-1] + int(known.sum()))
    return csr_array(
        (np.concatenate(values), np.concatenate(columns), np.array(ends)),
        shape=(len(vectors), len(terms)),
    )
