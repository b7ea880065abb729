"""Chunks to vectors: only what the vector store does not know is encoded, each text once.

The chunk table is streamed three times: for the keys (24 bytes a chunk stay in memory), for the
texts that have to be encoded, and for nothing but the order in which vectors are written. Texts are
encoded in parts of a few seconds, and each part is committed when it is done, so a kill loses no
more than the parts under way. The result does not depend on what was known before, on the parts or
on the engine: a vector is a function of its text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rag.progress import progress
from rag.retrieval.embeddings import (
    EmbeddingFacts,
    Embeddings,
    IdArray,
    make_facts,
    stream_embeddings,
    to_number,
)
from rag.retrieval.encoder import FloatMatrix, equal_length_batches
from rag.retrieval.engine import Part, PassageEncoder, choose_engine
from rag.retrieval.vector_store import Keys, VectorStore, as_keys, text_key

if TYPE_CHECKING:
    from rag.artifacts import Artifacts
    from rag.params import Params

_READ_ROWS = 4096
_WRITE_ROWS = 16_384
#: Texts that are sorted by length together: enough to fill batches of every length.
_WINDOW_CHUNKS = 16_384
_PART_SECONDS = 3.0
_FIRST_PART_BATCHES = 4


@dataclass(frozen=True)
class EmbeddingWork:
    """What `embed_chunks` did: the facts of its output, and what that took."""

    facts: EmbeddingFacts
    encoded: int
    """Texts that were not known before."""


@dataclass(frozen=True)
class _Source:
    """Which chunks are encoded, and by whom; `folder` is what the encoder was loaded from."""

    params: Params
    artifacts: Artifacts
    encoder: PassageEncoder
    folder: Path | None


@dataclass
class _Pace:
    """How many tokens make a part of a few seconds, learned from the parts that are done."""

    smallest: int
    tokens: int

    def learn(self, tokens: int, seconds: float) -> None:
        wanted = int(tokens * _PART_SECONDS / max(seconds, 1e-3))
        # A short part says little: grow by steps, so that one reading cannot mislead.
        self.tokens = max(self.smallest, min(wanted, 4 * self.tokens))


@dataclass
class _Window:
    """Texts that wait to be sorted."""

    keys: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def embed_chunks(params: Params, artifacts: Artifacts, encoder: PassageEncoder) -> EmbeddingWork:
    """The embed stage: writes the vectors of every chunk, in the table's order."""
    source = _Source(params, artifacts, encoder, artifacts.retriever)
    with VectorStore(artifacts.vectors, encoder.passage_fingerprint) as store:
        ids, keys = _read_keys(artifacts.chunks)
        encoded = _encode_unknown(source, store, keys, "embed")
        facts = stream_embeddings(
            artifacts.embeddings,
            ids,
            _blocks(store, keys),
            store.dimension or encoder.dimension,
            encoder.passage_fingerprint,
        )
        store.compact(keys)
        store.prune_others()
    return EmbeddingWork(facts, encoded)


def passage_vectors(
    params: Params, artifacts: Artifacts, encoder: PassageEncoder, *, folder: Path | None = None
) -> Embeddings:
    """The same vectors for training, through the same store, with the matrix (N, D) in memory.

    `folder` is the retriever's folder that `encoder` was loaded from, None for the model as it is.
    """
    source = _Source(params, artifacts, encoder, folder)
    with VectorStore(artifacts.vectors, encoder.passage_fingerprint) as store:
        ids, keys = _read_keys(artifacts.chunks)
        _encode_unknown(source, store, keys, "encode passages")
        vectors = np.empty((len(ids), store.dimension or encoder.dimension), dtype=np.float32)
        start = 0
        for block in _blocks(store, keys):
            vectors[start : start + len(block)] = block
            start += len(block)
    return Embeddings(make_facts(ids, vectors, encoder.passage_fingerprint), ids, vectors)


def _encode_unknown(source: _Source, store: VectorStore, keys: Keys, label: str) -> int:
    """Commits a vector for every key that has none; returns how many texts were encoded."""
    wanted = _first_unknown(store, keys)
    total = int(wanted.sum())
    if total == 0:
        return 0
    batch_tokens = source.params.embed.batch_tokens
    pace = _Pace(batch_tokens, _FIRST_PART_BATCHES * batch_tokens)
    engine = choose_engine(
        source.params, source.artifacts.weights_cache, source.encoder, source.folder
    )
    parts = _parts(source.artifacts.chunks, keys, wanted, batch_tokens, pace)
    with progress(label, total) as advance:
        for done in engine.encode(parts, advance):
            store.append(done.part.keys, done.vectors)
            pace.learn(done.part.tokens, done.seconds)
    return total


def _read_keys(chunks: Path) -> tuple[IdArray, Keys]:
    """Ids (N,) and the keys of the texts (N,), in the table's order."""
    ids, keys = [np.empty(0, dtype=np.uint64)], [as_keys([])]
    for batch in _batches(chunks, ["chunk_id", "text"]):
        numbers = [to_number(chunk_id) for chunk_id in batch.column("chunk_id").to_pylist()]
        ids.append(np.array(numbers, dtype=np.uint64))
        keys.append(as_keys([text_key(text) for text in batch.column("text").to_pylist()]))
    return np.concatenate(ids), np.concatenate(keys)


def _first_unknown(store: VectorStore, keys: Keys) -> npt.NDArray[np.bool_]:
    """Which rows have to be encoded, shape (N,): the first of each text without a sound vector."""
    positions = store.find(keys)
    known = positions >= 0
    known[known] = ~store.damaged(positions[known])
    unknown = np.flatnonzero(~known)
    _, first = np.unique(keys[unknown], return_index=True)
    wanted = np.zeros(len(keys), dtype=np.bool_)
    wanted[unknown[first]] = True
    return wanted


def _blocks(store: VectorStore, keys: Keys) -> Iterator[FloatMatrix]:
    positions = store.find(keys)
    if (positions < 0).any():
        raise ValueError("the engine left out a part")
    for start in range(0, len(positions), _WRITE_ROWS):
        yield store.rows(positions[start : start + _WRITE_ROWS])


def _parts(
    chunks: Path, keys: Keys, wanted: npt.NDArray[np.bool_], batch_tokens: int, pace: _Pace
) -> Iterator[Part]:
    """Parts of about `pace.tokens` tokens, each made of whole batches of equal length.

    The longest texts come first, so that a batch too large for memory fails at once; the others are
    mixed, so that the time left can be told from the time taken.
    """
    for window in _windows(chunks, keys, wanted):
        first, *rest = equal_length_batches(window.lengths, batch_tokens)
        random.Random(0).shuffle(rest)
        rows, tokens = first, _tokens(window, first)
        for batch in rest:
            if tokens >= pace.tokens:
                yield _part(window, rows, tokens)
                rows, tokens = [], 0
            rows, tokens = rows + batch, tokens + _tokens(window, batch)
        yield _part(window, rows, tokens)


def _tokens(window: _Window, rows: list[int]) -> int:
    return sum(window.lengths[row] for row in rows)


def _part(window: _Window, rows: list[int], tokens: int) -> Part:
    keys = as_keys([window.keys[row] for row in rows])
    return Part(keys, tuple(window.texts[row] for row in rows), tokens)


def _windows(chunks: Path, keys: Keys, wanted: npt.NDArray[np.bool_]) -> Iterator[_Window]:
    """The wanted rows of the table, some 10^4 at a time."""
    window, start = _Window(), 0
    # The chunker's count saves tokenising twice; here it only sorts.
    for batch in _batches(chunks, ["text", "token_count"]):
        rows = start + np.flatnonzero(wanted[start : start + batch.num_rows])
        taken = batch.take(pa.array(rows - start))
        window.keys += [bytes(key) for key in keys[rows]]
        window.texts += taken.column("text").to_pylist()
        window.lengths += taken.column("token_count").to_pylist()
        start += batch.num_rows
        if len(window.texts) >= _WINDOW_CHUNKS:
            yield window
            window = _Window()
    if window.texts:
        yield window


def _batches(chunks: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(chunks) as file:
        yield from file.iter_batches(_READ_ROWS, columns=columns)
