"""The index against what one would pick instead: build, queries a second, recall@10, memory.

    python benchmarks/index_speed.py                  # 50,000 x 384; the local mode takes minutes
    python benchmarks/index_speed.py --count 5000 --dimension 64 --queries 100
    python benchmarks/index_speed.py --local-points 5000

Every engine runs in a process of its own, one after the other, over the same seeded vectors; both
Qdrant engines also get the same BM25 vectors and payloads. Building ends when everything is on disk
and ready to be searched. Recall is against numpy. With `--local-points N` the local mode gets only
the first N points: its queries are then easier than ours.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from index_engines import ENGINES, LIMIT, LOCAL, Matrix, exact

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SUBJECTS, TERMS, VOCABULARY = 2000, 40, 30_000
UPSERT, QUERY, RECALL = 50, 20, 0.99
#: Loaded before the clock starts.
LIBRARIES = ("faiss", "qdrant_client", "qdrant_edge", "rag.retrieval.index_edge")


def main() -> None:
    """Prints one row for each engine, then the ratios."""
    options = _options()
    if options.child:
        print(json.dumps(measure(options.child, Path(options.folder), options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), options)
        print(f"{options.count:,} x {options.dimension}, {options.queries} queries, top {LIMIT}, ")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start\n")
        print(
            f"{'engine':<22}{'points':>8}{'build s':>9}{'points/s':>10}{'q/s single':>12}"
            f"{'q/s batch':>11}{'recall@10':>11}{'peak MB':>9}"
        )
        rows = {}
        for name in options.engines or ENGINES:
            rows[name] = row = run_child(name, folder)
            print(
                f"{name:<22}{row['points']:>8,}{row['build']:>9.2f}{row['rate']:>10,.0f}"
                f"{row['single']:>12,.0f}{row['batch']:>11,.0f}{row['recall']:>11.4f}"
                f"{row['peak_mb']:>9,.0f}",
                flush=True,
            )
    if LOCAL in rows:
        print_ratios(rows)


def print_ratios(rows: dict[str, dict[str, Any]]) -> None:
    """Every Edge row against the local mode, which syncs its file for each point."""
    local = rows[LOCAL]
    print(f"\nTimes {LOCAL} (targets: upsert {UPSERT}, query {QUERY}, recall {RECALL}); a sync of")
    print(f"a file takes {1e6 * sync_seconds():.0f} microseconds here:")
    for name, row in rows.items():
        if name.startswith("edge"):
            ratios = (row[key] / local[key] for key in ("rate", "single", "batch"))
            line = "upsert {:6.1f}   one query {:6.1f}   batch {:6.1f}".format(*ratios)
            print(f"  {name:<18}{line}   recall {row['recall']:.4f}")


def sync_seconds() -> float:
    """Median time to write two kilobytes for good."""
    taken = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(100):
            started = time.perf_counter()
            file.write(bytes(2000))
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - started)
    return sorted(taken)[50]


def run_child(name: str, folder: str) -> dict[str, Any]:
    arguments = [item for item in sys.argv[1:] if item not in (*ENGINES, "--engines")]
    command = [sys.executable, __file__, *arguments, "--child", name, "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def make_data(folder: Path, options: argparse.Namespace) -> None:
    """Unit vectors around seeded directions, queries near some of them, and the exact answers."""
    rng = np.random.default_rng(0)
    subjects = rng.normal(size=(SUBJECTS, options.dimension)).astype(np.float32)

    def near(count: int, spread: float) -> Matrix:
        found = subjects[rng.integers(0, SUBJECTS, count)]
        found = found + spread * rng.normal(size=found.shape).astype(np.float32)
        unit: Matrix = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    vectors, queries = near(options.count, 0.6), near(options.queries, 0.6)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "exact.npy", exact(vectors, queries))
    terms = 0 if options.vectors_only else TERMS
    picks = rng.zipf(1.3, size=(options.count, terms)) % VOCABULARY
    np.save(folder / "terms.npy", picks.astype(np.uint32))


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Builds, then searches one by one and all at once."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy")
    truth = np.load(folder / "exact.npy")
    if name == LOCAL:
        queries = queries[: options.local_queries]
        if options.local_points:
            vectors = vectors[: options.local_points]
            truth = exact(np.asarray(vectors), queries)
    for library in LIBRARIES:
        importlib.import_module(library)
    started = time.perf_counter()
    prepare = ENGINES[name](vectors, folder)
    search, untimed = next(prepare)
    build = time.perf_counter() - started - untimed
    search(queries[:1])
    started = time.perf_counter()
    found = [search(query[None])[0] for query in queries]
    single = time.perf_counter() - started
    started = time.perf_counter()
    search(queries)
    batch = time.perf_counter() - started
    hits = sum(len({*row} & {*best}) for row, best in zip(found, truth.tolist(), strict=False))
    return {
        "points": len(vectors),
        "build": build,
        "rate": len(vectors) / build,
        "single": len(queries) / single,
        "batch": len(queries) / batch,
        "recall": hits / (len(queries) * LIMIT),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=50_000, help="vectors")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--vectors-only", action="store_true", help="no BM25, no payload")
    parser.add_argument("--local-points", type=int, help="give the local mode only the first N")
    parser.add_argument("--local-queries", type=int, default=100, help="queries of the local mode")
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES), metavar="ENGINE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
