"""What storage costs as a corpus grows: time, memory and disk of everything but the encoder.

    python benchmarks/embed_scale.py                        # 10,000, 100,000 and 1,000,000 chunks
    python benchmarks/embed_scale.py --sizes 10000

A stub in the encoder's place draws vectors (384 dimensions) from a seeded hash of the text; all
else is real: chunks.parquet -> vector store -> data/embed -> the index (Qdrant Edge), then the
embed stage once more with nothing changed. Each size runs in a process of its own. Anonymous memory
is what the process itself holds; the resident set also counts pages of memory-mapped files, which
the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rag.artifacts import Artifacts, folder_bytes
from rag.params import IndexParams, Params
from rag.records import CHUNKS
from rag.retrieval.embedding import embed_chunks
from rag.retrieval.embeddings import read_embeddings, read_facts
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.index import open_index, publish_index

DIMENSION = 384
WORDS_A_CHUNK = 60
VOCABULARY = 50_000
_BLOCK = 10_000
_SAMPLE_SECONDS = 0.05
_STEPS = ("write chunks", "embed", "embed again", "publish index")


class StubEncoder:
    """Vectors from nothing but the text, as fast as they can be made."""

    passage_fingerprint = hashlib.sha256(b"stub").hexdigest()
    dimension = DIMENSION

    def encode(
        self,
        texts: Sequence[str],
        side: str,
        *,
        batch_tokens: int,
        progress: Callable[[int], None] | None = None,
    ) -> FloatMatrix:
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            bits = hashlib.shake_128(text.encode()).digest(2 * DIMENSION)
            vectors[row] = np.frombuffer(bits, dtype="<i2")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if progress is not None:
            progress(len(texts))
        return vectors


class MemoryWatch:
    """The most anonymous memory that this process held, in bytes, while the block ran."""

    def __enter__(self) -> MemoryWatch:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, status_bytes("RssAnon"))
            if self._stop.wait(_SAMPLE_SECONDS):
                return


def main() -> None:
    parser = argparse.ArgumentParser(description="Time, memory and disk of the storage path.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--search", choices=("exact", "hnsw"), default="exact")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.folder, arguments.search)))
        return
    rows = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            command = [sys.executable, __file__, "--child", str(size)]
            command += ["--folder", folder, "--search", arguments.search]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        show(rows[-1])
    show_growth(rows)


def measure(size: int, folder: Path, search: str) -> dict[str, Any]:
    """Everything once, in this process."""
    params = Params(index=IndexParams(search="hnsw" if search == "hnsw" else "exact"))
    artifacts, encoder = Artifacts(folder), StubEncoder()
    encoded: list[int] = []

    def embed() -> None:
        encoded.append(embed_chunks(params, artifacts, encoder).encoded)

    def publish() -> None:
        publish_index(
            params.index,
            artifacts.index_folder,
            read_embeddings(artifacts.embeddings),
            artifacts.chunks,
        )

    actions = (lambda: write_chunks(artifacts.chunks, size), embed, embed, publish)
    steps: dict[str, Any] = {}
    for name, action in zip(_STEPS, actions, strict=True):
        started = time.monotonic()
        with MemoryWatch() as memory:
            action()
        seconds = time.monotonic() - started
        steps[name] = {"seconds": seconds, "anonymous": memory.peak, "peak": status_bytes("VmHWM")}
    if encoded != [size, 0]:
        raise SystemExit(f"encoded {encoded}, expected {[size, 0]}")
    facts = read_facts(artifacts.embeddings)
    index = open_index(params.index, artifacts.index_folder, facts)
    started = time.monotonic()
    queries = read_embeddings(artifacts.embeddings).vectors[: min(size, 100)]
    hits = index.search_dense(np.asarray(queries), 10)
    milliseconds = 1000 * (time.monotonic() - started) / len(hits)
    index.close()
    disk = {
        "chunks": artifacts.chunks.stat().st_size,
        "store": folder_bytes(artifacts.vectors),
        "embed": folder_bytes(artifacts.embeddings),
        "index": folder_bytes(artifacts.index_folder),
    }
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "size": size, "steps": steps, "disk": disk, "peak": highest, "query_ms": milliseconds
    }  # fmt: skip


def write_chunks(path: Path, size: int) -> None:
    """Distinct texts of 60 words out of 50,000, two chunks a document, block by block."""
    path.parent.mkdir(parents=True)
    words = np.array([f"w{number:x}" for number in range(VOCABULARY)])
    with pq.ParquetWriter(path, CHUNKS, compression="zstd", store_schema=False) as writer:
        for rows in blocks(size):
            random = np.random.default_rng(rows[0])
            # Squared: some words are frequent, most are rare, as in text.
            drawn = (VOCABULARY * random.random((len(rows), WORDS_A_CHUNK)) ** 2).astype(int)
            texts = [
                f"{row} {' '.join(line)}" for row, line in zip(rows, words[drawn], strict=True)
            ]
            writer.write_table(chunk_table(rows, texts))


def chunk_table(rows: range, texts: Sequence[str]) -> pa.Table:
    """What is given for columns that this file does not know is empty."""
    columns: dict[str, list[Any]] = {
        "chunk_id": [hashlib.sha256(str(row).encode()).hexdigest()[:16] for row in rows],
        "document_id": [f"{row // 2:016x}" for row in rows],
        "ordinal": [row % 2 for row in rows],
        "text": list(texts),
        "token_count": [2 * WORDS_A_CHUNK + row % 16 for row in rows],
    }
    empty = {"metadata": "{}", "language": "en"}
    for name in CHUNKS.names:
        columns.setdefault(name, [empty.get(name, "")] * len(rows))
    return pa.Table.from_pydict({name: columns[name] for name in CHUNKS.names}, schema=CHUNKS)


def blocks(size: int) -> Iterator[range]:
    for start in range(0, size, _BLOCK):
        yield range(start, min(start + _BLOCK, size))


def status_bytes(name: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {name}; this benchmark needs Linux")


def show(row: dict[str, Any]) -> None:
    size = row["size"]
    print(f"\n{size:,} chunks, {DIMENSION} dimensions")
    for name, step in row["steps"].items():
        print(
            f"  {name:14} {step['seconds']:8.1f} s {size / step['seconds']:>11,.0f} chunks/s   "
            f"memory: {step['anonymous'] / 2**20:6,.0f} MiB of its own at most, "
            f"resident peak so far {step['peak'] / 2**20:6,.0f} MiB"
        )
    disk = ", ".join(f"{name} {count / size:,.0f}" for name, count in row["disk"].items())
    print(f"  disk, bytes a chunk: {disk}")
    print(f"  dense search, batch of 100: {row['query_ms']:.2f} ms a query", flush=True)


def show_growth(rows: Sequence[dict[str, Any]]) -> None:
    """How time grows from one size to the next: 1.0 is linear."""
    for smaller, larger in itertools.pairwise(rows):
        factor = larger["size"] / smaller["size"]
        growth = ", ".join(
            f"{name} {step['seconds'] / smaller['steps'][name]['seconds'] / factor:.2f}"
            for name, step in larger["steps"].items()
        )
        print(f"\ntime a chunk, {larger['size']:,} against {smaller['size']:,}: {growth}")
    limit = 4 * 2**30
    worst = max(row["peak"] for row in rows)
    print(f"resident peak {worst / 2**30:.2f} GiB, {'under' if worst < limit else 'OVER'} 4 GiB")


if __name__ == "__main__":
    main()
