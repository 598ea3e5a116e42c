"""The case bootstrap: draws as counts per case, shared by every model, region and metric of a dataset.

A draw is a row of counts w (how often each case was drawn), so the mean of every series of every draw is one
matrix product W @ X. Medians and signed ranks come from cumulative counts along a series that is sorted once.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, IntArray, generator
from segbench.stats.errors import StatsError

BLOCK_BYTES = 2_000_000  # of a block of counts: stays in the cache, and is half as dear as 48 MB blocks
FEWEST_ROWS = 16  # of a block, for very many cases
GroupIndex: TypeAlias = IntArray


def group_index(groups: ArrayLike | None, cases: int) -> GroupIndex | None:
    """(cases,) group number of each case, or None when every case stands for itself.

    Raises:
        StatsError: not one label per case.
    """
    if groups is None:
        return None
    labels = np.asarray(groups)
    if labels.shape != (cases,):
        raise StatsError(f"groups: expected one label per case, shape ({cases},), found {labels.shape}")
    return np.unique(labels.astype(str), return_inverse=True)[1].astype(np.int64)


def count_blocks(
    cases: int, *, resamples: int, seed: int, groups: GroupIndex | None = None, row_bytes: int = 8
) -> Iterator[FloatArray]:
    """Yield (draws, cases) count matrices, `resamples` rows in all.

    Args:
        cases: number of cases.
        resamples: draws in all.
        seed: the draws depend on it and on the number of units only, never on the block size.
        groups: whole groups are drawn instead of cases.
        row_bytes: bytes that the caller needs per draw and case; decides the block size.
    """
    rng = generator(seed)
    units = cases if groups is None else int(groups.max()) + 1
    block = int(min(resamples, max(FEWEST_ROWS, BLOCK_BYTES // (max(row_bytes, 8) * cases))))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, units, size=(rows, units), dtype=np.uint32).astype(np.int64)
        drawn += np.arange(rows)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)
        yield counts if groups is None else counts[:, groups]


def bootstrap_means(
    values: FloatArray, *, resamples: int, seed: int, groups: GroupIndex | None = None
) -> FloatArray:
    """(resamples, series) means of `values` (cases, series), the same draws for each series."""
    blocks = count_blocks(values.shape[0], resamples=resamples, seed=seed, groups=groups)
    return np.concatenate([(w @ values) / w.sum(axis=1, keepdims=True) for w in blocks])


def bootstrap_medians(
    values: FloatArray, *, resamples: int, seed: int, groups: GroupIndex | None = None
) -> FloatArray:
    """(resamples, series) medians of `values` (cases, series), the same draws for each series."""
    blocks = count_blocks(values.shape[0], resamples=resamples, seed=seed, groups=groups)
    order = np.argsort(values, axis=0, kind="stable")
    return np.concatenate([weighted_medians(values, order, w) for w in blocks])


def weighted_medians(values: FloatArray, order: IntArray, counts: FloatArray) -> FloatArray:
    """(draws, series) medians of `values` (cases, series) where case c occurs counts[draw, c] times.

    `order` is the stable argsort of `values` along the cases, made once for all draws.
    """
    total = counts.sum(axis=1).astype(np.int64)
    small = np.uint16 if total.max() < 65_536 else np.uint32
    drawn = np.ascontiguousarray(counts.T.astype(small))  # (cases, draws): adding up cases adds whole rows
    lower, upper = ((total + 1) // 2).astype(small), (total // 2 + 1).astype(small)  # 1-based middle places
    medians = np.empty((counts.shape[0], values.shape[1]))
    for series in range(values.shape[1]):
        reached = np.cumsum(drawn[order[:, series]], axis=0, dtype=small)
        ordered = values[order[:, series], series]
        left, right = (reached < lower).sum(axis=0), (reached < upper).sum(axis=0)
        medians[:, series] = (ordered[left] + ordered[right]) / 2
    return medians
