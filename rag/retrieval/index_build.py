"""Building an index: batches of chunks and vectors go in as they are read, nothing is kept.

A build that was killed goes on after the last batch that the index holds for good.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import IndexMismatchError
from rag.params import IndexParams
from rag.records import Chunk, iter_chunk_texts, iter_chunks
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.embeddings import to_number
from rag.retrieval.index import BuildPlan, Chunks, Seal, VectorIndex
from rag.retrieval.index_payload import payload_of

if TYPE_CHECKING:
    from rag.retrieval.embeddings import Embeddings

#: Texts whose length in BM25's terms stands for that of all.
_LENGTH_SAMPLE = 2000
#: Vectors that were read are handed back to the system at least this often.
_RELEASE_POINTS = 65_536


def build_index(
    index: VectorIndex,
    plan: BuildPlan,
    embeddings: Embeddings,
    chunks: Chunks,
    params: IndexParams,
    *,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Fills and seals `index`; `progress` counts points, those of an earlier attempt at once.

    Raises IndexMismatchError where chunks and embeddings are not of the same run.
    """
    from rag.retrieval.index_check import check_count, is_exact, recall_line, search_recall

    if isinstance(chunks, Iterator):
        raise TypeError("chunks are read twice: give a path or batches that can be read again")
    average = average_length(chunks, plan.count)
    bm25 = Bm25Encoder(average)
    done = index.begin(plan)
    if progress is not None and done:
        progress(done)
    released = done
    for rows in _batches(chunks, params.upsert_batch, done):
        ids = np.array([to_number(chunk.chunk_id) for chunk in rows], dtype=np.uint64)
        if not np.array_equal(ids, embeddings.ids[done : done + len(rows)]):
            raise IndexMismatchError(
                f"chunks and embeddings differ after {done} rows; run: dvc repro embed"
            )
        index.upsert(
            ids,
            np.asarray(embeddings.vectors[done : done + len(rows)]),
            list(bm25.passages(chunk.text for chunk in rows)),
            [payload_of(chunk) for chunk in rows],
        )
        done += len(rows)
        index.checkpoint(done)
        if done - released >= _RELEASE_POINTS:
            _release(embeddings.vectors)
            released = done
        if progress is not None:
            progress(len(rows))
    if done != plan.count:
        raise IndexMismatchError(
            f"{done} chunks, but embeddings of {plan.count}; run: dvc repro embed"
        )
    _release(embeddings.vectors)
    index.finish()
    check_count(index, embeddings.facts)
    recall = None
    if not is_exact(params):
        recall = search_recall(index, embeddings)
        if say is not None:
            say(recall_line(params, recall))
    index.seal(Seal(plan.to_json(), average, recall))


def average_length(chunks: Chunks, count: int) -> float:
    """Mean number of terms of evenly spaced chunks: the point of no length penalty in BM25."""
    step = max(1, count // _LENGTH_SAMPLE)
    texts: list[str] = []
    row = 0
    batches = iter_chunk_texts(chunks) if isinstance(chunks, Path) else _texts(chunks)
    for batch in batches:
        texts += [text for at, text in enumerate(batch, start=row) if at % step == 0]
        row += len(batch)
    return Bm25Encoder.average_length(texts)


def _texts(batches: Any) -> Iterator[list[str]]:
    for batch in batches:
        yield [chunk.text for chunk in batch]


def _batches(chunks: Chunks, size: int, start: int) -> Iterator[Sequence[Chunk]]:
    """Rows from `start` on, at most `size` at a time."""
    if isinstance(chunks, Path):
        yield from iter_chunks(chunks, size, start=start)
        return
    row = 0
    for batch in chunks:
        rest = batch[max(0, start - row) :]
        row += len(batch)
        for first in range(0, len(rest), size):
            yield rest[first : first + size]


def _release(vectors: Any) -> None:
    """Pages of the memory map that were read would otherwise count as this process's memory."""
    mapped = getattr(vectors, "_mmap", None)
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)
