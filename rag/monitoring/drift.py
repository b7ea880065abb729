"""Whether a window of served queries differs from a reference: pure, seeded, one number a test.

Three questions are asked of a window: are the queries others than those that were trained on (MMD
of their embeddings), does the system decline more often (Fisher's exact test), does it find less
(Mann-Whitney's test of the retrieval scores). Each has its false-alarm rate `alpha` for one window;
`rag.monitoring.episodes` asks for several such windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.errors import InputError

FloatMatrix = npt.NDArray[np.float32]

#: Enough for a 99 % threshold that is itself known to about 3 %.
PERMUTATIONS = 1000
_MEDIAN_SAMPLE = 500
#: A squared distance that rounding gives equal vectors.
_ALIKE = 1e-5


@dataclass(frozen=True)
class QueryReference:
    """Queries (M, D) to compare windows of `window` queries with.

    `threshold` is the squared MMD that a window of the reference's own kind exceeds with
    probability `alpha`; `scale` is the kernel's, `within` the mean kernel of two reference queries.
    """

    vectors: FloatMatrix
    window: int
    scale: float
    within: float
    threshold: float


def calibrate(
    vectors: FloatMatrix,
    window: int,
    *,
    alpha: float,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> QueryReference:
    """The reference with its threshold, by drawing windows out of the reference itself.

    Each permutation takes `window` of the M queries for a window and the others for the reference.
    The kernel is exp(-|x - y|^2 / s), s the median of the squared distances (Gretton et al., A
    Kernel Two-Sample Test, JMLR 13, 2012). Raises InputError below two windows of queries.
    """
    count = len(vectors)
    if count < 2 * window:
        raise InputError(
            f"{count} reference queries are too few for windows of {window}: at least "
            f"{2 * window} are needed"
        )
    generator = np.random.default_rng(seed)
    rows = generator.permutation(count)[:_MEDIAN_SAMPLE]
    distances = _squared_distances(vectors[rows], vectors[rows])
    scale = float(np.median(distances[np.triu_indices(len(rows), 1)]))
    if scale < _ALIKE:
        raise InputError("the reference queries are all the same: nothing can differ from them")
    kernel = _kernel(vectors, vectors, scale)
    np.fill_diagonal(kernel, 0.0)
    chosen = np.zeros((count, permutations), dtype=np.float32)
    for column in range(permutations):
        chosen[generator.permutation(count)[:window], column] = 1.0
    sums = kernel @ chosen  # (M, permutations): kernel with the drawn window
    total = float(kernel.sum(dtype=np.float64))
    inside = np.einsum("mp,mp->p", chosen, sums, dtype=np.float64)
    across = sums.sum(axis=0, dtype=np.float64) - inside
    outside = total - inside - 2.0 * across
    rest = count - window
    drawn = (
        inside / (window * (window - 1))
        + outside / (rest * (rest - 1))
        - 2.0 * across / (window * rest)
    )
    # The smallest value that at most a share alpha of the draws, this one counted, reaches.
    place = min(permutations, math.ceil((1.0 - alpha) * (permutations + 1))) - 1
    return QueryReference(
        vectors=vectors,
        window=window,
        scale=scale,
        within=total / (count * (count - 1)),
        threshold=float(np.sort(drawn)[place]),
    )


def squared_mmd(reference: QueryReference, queries: FloatMatrix) -> float:
    """The unbiased squared MMD of a window (N, D) from the reference: 0 on average where alike."""
    count = len(queries)
    if count != reference.window:
        raise InputError(f"a window has {reference.window} queries, got {count}")
    own = _kernel(queries, queries, reference.scale)
    inside = (float(own.sum(dtype=np.float64)) - float(np.trace(own))) / (count * (count - 1))
    across = float(_kernel(queries, reference.vectors, reference.scale).mean(dtype=np.float64))
    return inside + reference.within - 2.0 * across


def strangest(reference: QueryReference, queries: FloatMatrix, limit: int) -> list[int]:
    """Places of the queries that are least like any reference query, the least first."""
    closest = _squared_distances(queries, reference.vectors).min(axis=1)
    return [int(place) for place in np.argsort(-closest, kind="stable")[:limit]]


def rise_p_value(before: tuple[int, int], now: tuple[int, int]) -> float:
    """One-sided p-value of Fisher's exact test that a share has risen; each is (hits, count)."""
    from scipy.stats import hypergeom  # type: ignore[import-untyped]

    (hits_before, count_before), (hits, count) = before, now
    total = count_before + count
    return float(hypergeom.sf(hits - 1, total, hits_before + hits, count))


def fall_p_value(before: Sequence[float], now: Sequence[float]) -> float:
    """One-sided p-value of the Mann-Whitney test that values have become lower."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(now, before, alternative="less", method="asymptotic").pvalue)


def _squared_distances(left: FloatMatrix, right: FloatMatrix) -> FloatMatrix:
    """(N, M), of rows (N, D) and (M, D)."""
    lengths = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None, :]
    found: FloatMatrix = np.maximum(lengths - 2.0 * (left @ right.T), 0.0)
    return found


def _kernel(left: FloatMatrix, right: FloatMatrix, scale: float) -> FloatMatrix:
    found: FloatMatrix = np.exp(-_squared_distances(left, right) / np.float32(scale))
    return found
