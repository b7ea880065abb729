"""Questions to passages: dense and BM25 candidates from the index, fused into one ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rag.records import Chunk, Passage
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.encoder import Encoder
from rag.retrieval.fusion import Candidate, Fusion, fuse
from rag.retrieval.index import Hits, VectorIndex

#: How many times the candidates are fetched to see the end of hits of equal score.
_TIE_LIMIT = 16


class Retriever:
    """Searches one index; the same object serves `ask`, the retrieve stage and the evaluation."""

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex,
        chunks: Sequence[Chunk],
        fusion: Fusion,
        *,
        candidates: int,
        average_tokens: float,
    ) -> None:
        self._encoder = encoder
        self._index = index
        self._chunks = {chunk.chunk_id: chunk for chunk in chunks}
        self._fusion = fusion
        self._candidates = candidates
        self._bm25 = Bm25Encoder(average_tokens)

    def candidates(self, questions: Sequence[str]) -> list[list[Candidate]]:
        """For each question the union of both searches, by chunk id, with raw scores."""
        vectors = self._encoder.encode(questions, "query")
        terms = [self._bm25.query(question) for question in questions]
        dense = self._best(
            len(questions), lambda rows, limit: self._index.search_dense(vectors[rows], limit)
        )
        sparse = self._best(
            len(questions),
            lambda rows, limit: self._index.search_bm25([terms[row] for row in rows], limit),
        )
        found = []
        for dense_hits, bm25_hits in zip(dense, sparse, strict=True):
            dense_scores, bm25_scores = dict(dense_hits), dict(bm25_hits)
            # A list that is not full is complete: what it leaves out shares no term, so scores 0.
            complete = 0 < len(bm25_hits) < self._candidates
            absent = 0.0 if complete else None
            found.append(
                [
                    Candidate(
                        chunk_id, dense_scores.get(chunk_id), bm25_scores.get(chunk_id, absent)
                    )
                    for chunk_id in sorted(dense_scores.keys() | bm25_scores.keys())
                ]
            )
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

    def search(
        self, questions: Sequence[str], languages: Sequence[str], limit: int
    ) -> list[list[Passage]]:
        """At most `limit` passages for each question, best first."""
        return [
            self.ranked(candidates, self._fusion.weight(language), limit)
            for candidates, language in zip(self.candidates(questions), languages, strict=True)
        ]

    def ranked(
        self, candidates: Sequence[Candidate], dense_weight: float, limit: int
    ) -> list[Passage]:
        """The best `limit` of one question's candidates as passages."""
        passages = []
        for rank, (position, score) in enumerate(fuse(candidates, dense_weight)[:limit], start=1):
            candidate = candidates[position]
            chunk = self._chunks[candidate.chunk_id]
            passages.append(
                Passage(
                    chunk_id=chunk.chunk_id,
                    document_id=chunk.document_id,
                    text=chunk.text,
                    score=score,
                    rank=rank,
                    dense_score=candidate.dense or 0.0,
                    bm25_score=candidate.bm25 or 0.0,
                )
            )
        return passages

    def close(self) -> None:
        self._index.close()


def _cut_through(hits: Hits, wanted: int, size: int) -> bool:
    """Whether hits of one score stand on both sides of the cut, and perhaps beyond the list."""
    return len(hits) == size and hits[wanted - 1][1] == hits[-1][1]
