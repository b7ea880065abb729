"""Whole clusters drawn with replacement, as sums of columns: exact, seeded, bounded in memory.

A resample draws G clusters out of G. All that a statistic needs of it are the sums of its columns,
so the rows are added up by cluster first, and the resample is a product: how often each cluster was
drawn, times its sums. Two exact shortcuts keep a million clusters affordable. Clusters with equal
sums cannot be told apart, so where few sums differ (scores of 0 and 1) one multinomial draw says
how often each of them came. Elsewhere the clusters stand in blocks that fit the processor's cache:
a multinomial draw splits the G draws between the blocks, and each block draws its share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import MetricError

FloatVector = npt.NDArray[np.float64]
FloatMatrix = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
#: Sums of columns for R resamples, (R, M), to one value a resample, (R,).
Statistic = Callable[[FloatMatrix], FloatVector]

#: Clusters of one block, and draws made at once: measured to stay in a processor's cache.
_BLOCK = 2**13
_DRAWS_AT_ONCE = 2**16
#: A count of a multinomial draw costs about as much as this many single draws.
_DRAWS_A_COUNT = 10
#: Mixes columns into one number, so that rows are compared by sorting numbers.
_MIX = 1.6180339887498949


@dataclass(frozen=True)
class Clusters:
    """Rows added up by cluster; each of the D kinds of `sums` occurs in `times` clusters."""

    sums: FloatMatrix  # (D, M)
    times: IntVector  # (D,), adds up to G
    sizes: IntVector  # (G,), rows of each cluster

    @property
    def count(self) -> int:
        """G, the clusters there are."""
        return len(self.sizes)

    @property
    def total(self) -> FloatMatrix:
        """The sums of all rows, (1, M)."""
        return self.times.astype(np.float64)[None, :] @ self.sums


def clusters_of(columns: FloatMatrix, names: Sequence[str] | None) -> Clusters:
    """Adds up `columns` (N, M) by cluster, in the order of the clusters' names.

    `names` has the cluster of each row; without it each row is one. Raises MetricError where the
    two differ in length.
    """
    if names is None:
        sums, sizes = columns, np.ones(len(columns), dtype=np.int64)
    else:
        if len(names) != len(columns):
            raise MetricError(f"bootstrap: {len(columns)} rows of scores but {len(names)} clusters")
        place = {name: position for position, name in enumerate(sorted(set(names)))}
        owner = np.fromiter((place[name] for name in names), dtype=np.int64, count=len(names))
        sums = np.column_stack([np.bincount(owner, weights=column) for column in columns.T])
        sizes = np.bincount(owner)
    return Clusters(*_merged(sums), sizes)


def resampled_sums(clusters: Clusters, resamples: int, seed: int) -> FloatMatrix:
    """Column sums of R draws of G clusters out of G: (R, M); equal for an equal seed."""
    generator = np.random.default_rng(seed)
    if len(clusters.sums) < clusters.count:
        return _drawn_by_kind(clusters, resamples, generator)
    return _drawn_by_block(clusters.sums, resamples, generator)


def leave_one_out(clusters: Clusters, statistic: Statistic) -> FloatVector:
    """The statistic without one cluster of each kind: (D,)."""
    total = clusters.total
    return np.concatenate([statistic(total - clusters.sums[block]) for block in _blocks(clusters)])


def _blocks(clusters: Clusters) -> Iterator[slice]:
    kinds = len(clusters.sums)
    return (slice(start, min(start + _BLOCK, kinds)) for start in range(0, kinds, _BLOCK))


def _merged(sums: FloatMatrix) -> tuple[FloatMatrix, IntVector]:
    """Equal rows once, with how often they occur, where that makes drawing cheaper."""
    key = np.zeros(len(sums))
    for column in sums.T:
        key = key * _MIX + column
    _, first, owner, times = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    kinds = sums[first]
    # Different rows may share a key, though hardly ever: then nothing is merged.
    if _DRAWS_A_COUNT * len(kinds) > len(sums) or not np.array_equal(kinds[owner], sums):
        return sums, np.ones(len(sums), dtype=np.int64)
    return kinds, times


def _drawn_by_kind(
    clusters: Clusters, resamples: int, generator: np.random.Generator
) -> FloatMatrix:
    shares = clusters.times / clusters.count
    at_once = max(1, _DRAWS_AT_ONCE // len(shares))
    return np.concatenate(
        [
            generator.multinomial(
                clusters.count, shares, size=min(at_once, resamples - start)
            ).astype(np.float64)
            @ clusters.sums
            for start in range(0, resamples, at_once)
        ]
    )


def _drawn_by_block(
    sums: FloatMatrix, resamples: int, generator: np.random.Generator
) -> FloatMatrix:
    groups = len(sums)
    starts = np.arange(0, groups, _BLOCK)
    sizes = np.diff(np.append(starts, groups))  # (B,)
    shares = generator.multinomial(groups, sizes / groups, size=resamples)  # (R, B)
    resampled = np.zeros((resamples, sums.shape[1]))
    for start, size, share in zip(starts, sizes, shares.T, strict=True):
        of_block = sums[start : start + size]
        at_once = max(1, _DRAWS_AT_ONCE // size)
        for first in range(0, resamples, at_once):
            draws = share[first : first + at_once]  # (r,)
            drawn = generator.integers(0, size, size=draws.sum())
            drawn += np.repeat(size * np.arange(len(draws)), draws)
            times = np.bincount(drawn, minlength=size * len(draws)).reshape(-1, size)
            resampled[first : first + at_once] += times.astype(np.float64) @ of_block
    return resampled
