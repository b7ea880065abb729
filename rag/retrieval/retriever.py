"""Questions to passages: dense and BM25 candidates from the index, fused into one ranking."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rag.errors import IndexMismatchError
from rag.records import Passage
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.encoder import Encoder
from rag.retrieval.fusion import Candidates, Fusion, fuse
from rag.retrieval.index import Hits, VectorIndex
from rag.retrieval.index_payload import StoredPassage, Where
from rag.retrieval.rerank import Reranker, reranked

Progress = Callable[[int], None]

#: How many times the candidates are fetched to see the end of hits of equal score.
_TIE_LIMIT = 16
#: Questions that are encoded and searched together.
_WINDOW = 1024


class Retriever:
    """Searches one index; the same object serves `ask`, the retrieve stage and the evaluation."""

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex,
        fusion: Fusion,
        *,
        candidates: int,
        reranker: Reranker | None = None,
    ) -> None:
        self._encoder = encoder
        self._index = index
        self._fusion = fusion
        self._candidates = candidates
        self._reranker = reranker
        # A question's terms all weigh 1, whatever the length of the indexed texts.
        self._bm25 = Bm25Encoder(1.0)

    def search(
        self,
        questions: Sequence[str],
        languages: Sequence[str],
        limit: int,
        where: Where | None = None,
    ) -> list[list[Passage]]:
        """At most `limit` passages for each question, best first, of those that match `where`."""
        return self.ranked(questions, self.candidates(questions, where), languages, limit)

    def candidates(
        self,
        questions: Sequence[str],
        where: Where | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Candidates]:
        """For each question the union of both searches with raw scores."""
        found: list[Candidates] = []
        for start in range(0, len(questions), _WINDOW):
            window = questions[start : start + _WINDOW]
            found += self._searched(window, where)
            if progress is not None:
                progress(len(window))
        return found

    def ranked(
        self,
        questions: Sequence[str],
        candidates: Sequence[Candidates],
        languages: Sequence[str],
        limit: int,
        *,
        fusion: Fusion | None = None,
    ) -> list[list[Passage]]:
        """The best `limit` of each question's candidates, by `fusion` where it is given."""
        fusion = fusion or self._fusion
        depth = max(limit, self._reranker.passages if self._reranker else 0)
        orders = [
            tuple(part[:depth] for part in fuse(found, fusion.rule(language)))
            for found, language in zip(candidates, languages, strict=True)
        ]
        wanted = dict.fromkeys(
            found.ids[position]
            for found, (order, _) in zip(candidates, orders, strict=True)
            for position in order
        )
        stored = self.passages(list(wanted))
        rows = [
            [
                _passage(stored[found.ids[position]], found, position, score, rank)
                for rank, (position, score) in enumerate(zip(*parts, strict=True), start=1)
            ]
            for found, parts in zip(candidates, orders, strict=True)
        ]
        if self._reranker is not None:
            rows = reranked(self._reranker, questions, rows)
        return [row[:limit] for row in rows]

    def passages(self, ids: Sequence[str]) -> Mapping[str, StoredPassage]:
        """What the index holds of these chunks; raises IndexMismatchError where one is missing."""
        stored = self._index.passages(ids) if ids else {}
        missing = [name for name in ids if name not in stored]
        if missing:
            raise IndexMismatchError(
                f"index {self._index.location} found {len(missing)} chunks that it does not hold, "
                f"for example {missing[0]}; run: ragloop index rebuild"
            )
        return stored

    @property
    def reranker_sha256(self) -> str | None:
        """The weights that read the best passages once more, None without a reranker."""
        return None if self._reranker is None else self._reranker.weights.sha256

    def close(self) -> None:
        self._index.close()

    def _searched(self, questions: Sequence[str], where: Where | None) -> list[Candidates]:
        vectors = self._encoder.encode(questions, "query")
        terms = [self._bm25.query(question) for question in questions]
        dense = self._best(
            len(questions),
            lambda rows, limit: self._index.search_dense(vectors[rows], limit, where),
        )
        sparse = self._best(
            len(questions),
            lambda rows, limit: self._index.search_bm25([terms[i] for i in rows], limit, where),
        )
        found = []
        for dense_hits, bm25_hits in zip(dense, sparse, strict=True):
            # A list that is not full is complete: what it leaves out shares no term, so scores 0.
            complete = 0 < len(bm25_hits) < self._candidates
            absent = 0.0 if complete else np.nan
            found.append(Candidates.of(dict(dense_hits), dict(bm25_hits), absent))
        return found

    def _best(self, count: int, search: Callable[[list[int], int], list[Hits]]) -> list[Hits]:
        """The best candidates of each question, the same in every process.

        An index returns hits of equal score in any order. Where the cut goes through such hits, the
        search is repeated until all of them are there; if they are too many, none of them is taken.
        """
        wanted = self._candidates
        found = search(list(range(count)), wanted + 1)
        for row in range(count):
            hits, size = found[row], wanted + 1
            while _cut_through(hits, wanted, size) and size < wanted * _TIE_LIMIT:
                size *= 4
                hits = search([row], size)[0]
            if _cut_through(hits, wanted, size):
                hits = [hit for hit in hits if hit[1] > hits[-1][1]]
            found[row] = sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:wanted]
        return found


def _passage(
    stored: StoredPassage, found: Candidates, position: int, score: float, rank: int
) -> Passage:
    dense, bm25 = float(found.dense[position]), float(found.bm25[position])
    return Passage(
        chunk_id=stored.chunk_id,
        document_id=stored.document_id,
        text=stored.text,
        score=float(score),
        rank=rank,
        dense_score=0.0 if math.isnan(dense) else dense,
        bm25_score=0.0 if math.isnan(bm25) else bm25,
    )


def _cut_through(hits: Hits, wanted: int, size: int) -> bool:
    """Whether hits of one score stand on both sides of the cut, and perhaps beyond the list."""
    return len(hits) == size and hits[wanted - 1][1] == hits[-1][1]
