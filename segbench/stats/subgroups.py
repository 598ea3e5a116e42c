"""Does the difference between two models depend on the subgroup, such as the size of the tumour?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import (
    FloatArray,
    IntArray,
    finite_array,
    generator,
    noise_floor,
    positive_count,
    read_only_float,
    read_only_int,
)
from segbench.stats.errors import StatsError
from segbench.stats.intervals import mean_interval


@dataclass(frozen=True, slots=True, eq=False)
class InteractionResult:
    """Mean paired difference per bin, and one test of whether the bins differ. No per-bin stars."""

    labels: tuple[str, ...]
    n: IntArray  # (bins,)
    means: FloatArray  # (bins,)
    low: FloatArray  # (bins,); nan for a bin of one case
    high: FloatArray
    statistic: float
    pvalue: float


def subgroup_interaction(
    differences: ArrayLike, bins: ArrayLike, *, resamples: int = 10_000, seed: int = 0
) -> InteractionResult:
    """One permutation test of whether the paired difference varies between bins; mean and interval per bin.

    The statistic is the variance of the bins' mean differences, weighted by bin size; its null law comes from
    permuting the bin labels, p = (1 + hits)/(1 + resamples).

    Args:
        differences: (n,) paired differences.
        bins: (n,) labels fixed before any prediction was seen (reference volume, never predicted volume).
            Bins are listed in sorted order, numbers by value.
        resamples: permutations, and draws of the bins' intervals.
        seed: of both.

    Raises:
        StatsError: fewer than 2 bins, labels of another length, NaN or inf.
    """
    positive_count(resamples, "resamples")
    values = finite_array(differences, "differences", ndim=1)
    labels = np.asarray(bins)
    if labels.shape != values.shape:
        raise StatsError(
            f"bins: expected one label per difference, shape {values.shape}, found {labels.shape}"
        )
    if labels.dtype.kind not in "biuf":
        labels = labels.astype(str)
    elif labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise StatsError("bins: a label is NaN or inf")
    names, member = np.unique(labels, return_inverse=True)
    if names.size < 2:
        raise StatsError(f"interaction needs at least 2 bins, found only {str(names[0])!r}")
    sizes = np.bincount(member)
    starts = np.cumsum(sizes) - sizes
    intervals = [
        mean_interval(values[member == b], resamples=resamples, seed=seed) for b in range(names.size)
    ]
    statistic = float(
        _between(np.add.reduceat(values[np.argsort(member, kind="stable")], starts)[None, :], sizes, values)[
            0
        ]
    )
    return InteractionResult(
        labels=tuple(str(name) for name in names),
        n=read_only_int(sizes),
        means=read_only_float([i.estimate for i in intervals]),
        low=read_only_float([i.low for i in intervals]),
        high=read_only_float([i.high for i in intervals]),
        statistic=statistic,
        pvalue=_permutation_pvalue(values, sizes, statistic, resamples, seed),
    )


def _between(sums: FloatArray, sizes: IntArray, values: FloatArray) -> FloatArray:
    """(draws,) size-weighted variance of the bin means, from (draws, bins) sums."""
    return (sizes * (sums / sizes - values.mean()) ** 2).sum(axis=1) / values.size


def _permutation_pvalue(
    values: FloatArray, sizes: IntArray, statistic: float, resamples: int, seed: int
) -> float:
    """Share of random assignments to bins of the same sizes with at least this much variance between them."""
    rng = generator(seed)
    starts = np.cumsum(sizes) - sizes
    slack = 1e-9 * statistic + noise_floor(values) ** 2  # equal assignments may differ in their last bits
    block = max(1, 2_000_000 // values.size)
    hits = 0
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        shuffled = rng.permuted(np.broadcast_to(values, (rows, values.size)), axis=1)
        hits += int(
            (_between(np.add.reduceat(shuffled, starts, axis=1), sizes, values) >= statistic - slack).sum()
        )
    return (1 + hits) / (1 + resamples)
