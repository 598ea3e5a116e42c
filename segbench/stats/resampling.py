"""The case bootstrap: draws as counts per case, shared by every model, region and metric of a dataset.

A draw is a row of counts w (how often each case was drawn), so the mean of every series of every draw is one
matrix product W @ X.
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


def count_blocks(cases: int, *, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield (draws, cases) count matrices, `resamples` rows in all.

    Args:
        cases: number of cases.
        resamples: draws in all.
        seed: the draws depend on it and on the number of cases only, never on the block size.
    """
    rng = generator(seed)
    block = int(min(resamples, max(FEWEST_ROWS, BLOCK_BYTES // (8 * cases))))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, cases, size=(rows, cases), dtype=np.uint32).astype(np.int64)
        drawn += np.arange(rows)[:, None] * cases
        yield np.bincount(drawn.ravel(), minlength=rows * cases).reshape(rows, cases).astype(np.float64)


def bootstrap_means(values: FloatArray, *, resamples: int, seed: int) -> FloatArray:
    """(resamples, series) means of `values` (cases, series), the same draws for each series."""
    blocks = count_blocks(values.shape[0], resamples=resamples, seed=seed)
    return np.concatenate([(w @ values) / w.sum(axis=1, keepdims=True) for w in blocks])
