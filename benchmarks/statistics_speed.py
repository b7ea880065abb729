"""What bootstrap intervals cost, up to a million clusters: processor time and memory.

    python benchmarks/statistics_speed.py             # 1,000 to 100,000 rows
    python benchmarks/statistics_speed.py --million   # and a million: a minute more

Every row is its own cluster, the most expensive case, and 10,000 resamples are drawn. F1 has few
different values, so equal rows are drawn together; where no two rows are alike each is drawn.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from rag.evaluation.statistics import FloatMatrix, Resampling, bootstrap_intervals, mean_of

SCORES = np.array([0.0, 0.2, 0.25, 0.33, 0.4, 0.5, 0.57, 0.67, 0.8, 1.0])
COLUMNS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Processor time and memory of intervals.")
    parser.add_argument("--million", action="store_true", help="also a million rows")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    for rows in (1_000, 10_000, 100_000, *([1_000_000] if options.million else [])):
        ones = np.ones(rows)
        alike = np.column_stack([generator.choice(SCORES, size=rows), ones])
        print(f"{rows:9,} rows, F1: {measured(alike)}", flush=True)
        distinct = np.column_stack([generator.random((rows, COLUMNS - 1)), ones])
        print(f"{rows:9,} rows, {COLUMNS} columns, none alike: {measured(distinct)}", flush=True)


def measured(columns: FloatMatrix) -> str:
    """Seconds of one interval, and the most memory this process held so far."""
    start = time.process_time()
    bootstrap_intervals(
        columns,
        {"mean": mean_of(0, columns.shape[1] - 1)},
        None,
        Resampling(resamples=10_000, confidence=0.95, seed=1),
        bounds=(0.0, 1.0),
    )
    seconds = time.process_time() - start
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{seconds:.2f} s, {resident:.0f} MiB resident (inputs {columns.nbytes / 2**20:.0f} MiB)"


if __name__ == "__main__":
    main()
