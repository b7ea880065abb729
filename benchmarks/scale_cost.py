"""What a corpus costs at 1 million, 100 million and 10 billion chunks: the tables of docs/scale.md.

    python benchmarks/scale_cost.py --core-rate 56 --gpu-rate 10000

Everything is worked out from the rates and prices below. Rates are measured (the command that
measures each is beside it) or marked as assumed; prices are assumptions of this project, in no
particular currency, and no vendor's. Put your own in.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

SIZES = {"1 M": 10**6, "100 M": 10**8, "10 B": 10**10}
DAYS_TO_ENCODE = 1.0
"""How long the first encoding may take: what the number of workers follows from."""
CHANGED_SHARE = 0.01
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Rates:
    """What the machine does. Each field is an option of the command line."""

    core_rate: float = 56.0
    """Chunks a second a core encodes; benchmarks/encoding.py prints chunks/s of all cores."""
    gpu_rate: float = 10_000.0
    """Chunks a second a GPU encodes. Assumed."""
    store_rate: float = 34_000.0
    """Chunks a second from chunks.parquet to data/embed; benchmarks/embed_scale.py, `embed`."""
    publish_rate: float = 3_900.0
    """Chunks a second into one index; benchmarks/embed_scale.py, `publish index`."""
    text_bytes: float = 500.0
    """A chunk in chunks.parquet, compressed."""
    index_bytes: float = 3_240.0
    """A chunk in the index on disk; benchmarks/embed_scale.py, `disk`."""
    embed_memory: float = 220.0
    """Bytes the embed stage holds for each chunk; benchmarks/embed_scale.py, `embed`."""
    dimension: float = 384.0
    shard_chunks: float = 10_000_000.0
    """Chunks one index shard holds before another one is better."""


@dataclass(frozen=True)
class Prices:
    """Assumed prices. Each field is an option of the command line."""

    core_hour: float = 0.04
    gpu_hour: float = 2.50
    memory_gb_month: float = 3.00
    disk_gb_month: float = 0.08
    object_gb_month: float = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description="Time, memory, disk and money by size.")
    for kind in (Rates, Prices):
        for item in fields(kind):
            name = f"--{item.name.replace('_', '-')}"
            parser.add_argument(name, type=float, default=item.default)
    given = vars(parser.parse_args())
    rates, prices = (
        kind(**{item.name: given[item.name] for item in fields(kind)}) for kind in (Rates, Prices)
    )
    sizes = list(SIZES.values())
    table("encoding", encoding(rates, prices, sizes))
    table("storage", storage(rates, prices, sizes))
    table("search", search(rates, prices, sizes))


Row = tuple[str, Sequence[str]]


def encoding(rates: Rates, prices: Prices, sizes: Sequence[int]) -> Iterable[Row]:
    """Hours and money to encode everything once, and after 1 % has changed."""
    for name, rate, price in (
        ("core", rates.core_rate, prices.core_hour),
        ("GPU", rates.gpu_rate, prices.gpu_hour),
    ):
        hours = [size / rate / 3600 for size in sizes]
        yield f"{name} hours, everything once", [amount(value) for value in hours]
        yield (
            f"{name}s to be done in {DAYS_TO_ENCODE:g} day",
            [amount(max(1, value / 24 / DAYS_TO_ENCODE)) for value in hours],
        )
        yield f"money, everything once on {name}s", [amount(value * price) for value in hours]
        yield (
            f"money, {CHANGED_SHARE:.0%} changed, on {name}s",
            [amount(value * price * CHANGED_SHARE) for value in hours],
        )


def storage(rates: Rates, prices: Prices, sizes: Sequence[int]) -> Iterable[Row]:
    """Disk, and what the process that hands out parts needs."""
    vector = 4 * rates.dimension
    parts = {
        "chunks.parquet": rates.text_bytes,
        "vector store": vector + 20,
        "data/embed": vector + 8,
        "index": rates.index_bytes,
    }
    for name, each in parts.items():
        yield f"{name}, GB", [amount(size * each / 1e9) for size in sizes]
    disk = [size * sum(parts.values()) / 1e9 for size in sizes]
    yield "money a month, all on local disk", [amount(gb * prices.disk_gb_month) for gb in disk]
    kept = sum(parts.values()) - parts["index"]
    yield (
        "money a month, all but the index as objects",
        [amount(size * kept / 1e9 * prices.object_gb_month) for size in sizes],
    )
    yield (
        "memory of the embed stage, GB",
        [amount(0.26 + size * rates.embed_memory / 1e9) for size in sizes],
    )
    yield "hours of storing, one process", [amount(s / rates.store_rate / 3600) for s in sizes]


def search(rates: Rates, prices: Prices, sizes: Sequence[int]) -> Iterable[Row]:
    """What the index keeps in memory for fast search, by kind of vector."""
    links = 16 * 2 * 4 * 1.1  # HNSW with m 16: twice m neighbours on the lowest layer, 4 bytes each
    for name, each in (
        ("float32 and HNSW", 4 * rates.dimension + links),
        ("int8 and HNSW, rescored from disk", rates.dimension + links),
        ("binary and HNSW, rescored from disk", rates.dimension / 8 + links),
    ):
        memory = [size * each / 1e9 for size in sizes]
        yield f"memory, GB: {name}", [amount(value) for value in memory]
        yield (
            "money a month for it, one replica",
            [amount(value * prices.memory_gb_month) for value in memory],
        )
    shards = [max(1.0, size / rates.shard_chunks) for size in sizes]
    yield f"shards of {rates.shard_chunks / 1e6:g} M chunks", [amount(value) for value in shards]
    yield (
        "hours to publish, all shards at once",
        [
            amount(size / count / rates.publish_rate / 3600)
            for size, count in zip(sizes, shards, strict=True)
        ],
    )


def amount(value: float) -> str:
    """Two significant digits: these are estimates."""
    if value >= 1e6:
        return f"{value / 1e6:.2g} M" if value < 1e8 else f"{value / 1e6:,.0f} M"
    if value >= 100:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.2g}"


def table(name: str, rows: Iterable[Row]) -> None:
    print(f"| {name} | {' | '.join(SIZES)} |")
    print("|---|" + "---:|" * len(SIZES))
    for label, cells in rows:
        print(f"| {label} | {' | '.join(cells)} |")
    print()


if __name__ == "__main__":
    main()
