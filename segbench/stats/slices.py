"""Whether models compare alike on all groups of patients: one test for a column of a table."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, IntArray, real_numbers, refuse_non_finite
from segbench.stats.errors import StatsError

CHUNK = 200_000  # scores that are shuffled at once


def slices_differ(
    scores: ArrayLike, groups: Sequence[str], *, draws: int = 1999, seed: int = 0
) -> tuple[float, int, str]:
    """The p of no interaction between models and groups, and the model and group that fall furthest short.

    Each patient's mean over the models is taken out, so that a group of hard patients is not an interaction;
    with one model it stays in, and the test asks whether the scores differ. The statistic is the share of
    variance between groups, of the model with the largest; groups are shuffled over patients, so the size is
    exact.

    Args:
        scores: (models, patients), higher is better, no NaN.
        groups: the group of each patient; two or more, each of two or more patients.
        draws: shuffles.
        seed: of the shuffles.

    Returns:
        p; the number of the model and the name of the group with the lowest mean beside what the others get,
        in standard errors.

    Raises:
        StatsError: other shapes, NaN or inf, fewer than two groups, a group of one.

    **Source:** Edgington and Onghena 2007 (randomisation tests).
    """
    values = real_numbers(scores, "scores")
    if values.ndim != 2 or values.shape[1] != len(groups):
        raise StatsError(f"scores: expected (models, {len(groups)}), found shape {values.shape}")
    refuse_non_finite(values, "scores")
    names, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if names.size < 2 or sizes.min() < 2:
        raise StatsError(f"groups: expected two or more of two or more patients, found {sizes.tolist()}")
    beside = values - values.mean(axis=0) if len(values) > 1 else values
    beside = beside - beside.mean(axis=1, keepdims=True)
    order = np.argsort(place, kind="stable")
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    total = (beside**2).sum(axis=1)
    kept = beside[total > 1e-12 * max(1.0, float((values**2).sum()))]
    if not len(kept):
        return 1.0, 0, str(names[0])
    found = float(_between(kept[:, None, order], starts, sizes)[0])
    random = np.random.default_rng(seed)
    reached, left = 0, draws
    while left:
        count = min(left, max(1, CHUNK // kept.size))
        shuffled = random.permuted(np.tile(np.arange(len(groups)), (count, 1)), axis=1)
        reached += int((_between(kept[:, shuffled], starts, sizes) >= found * (1 - 1e-12)).sum())
        left -= count
    means = np.add.reduceat(beside[:, order], starts, axis=1) / sizes
    error = beside.std(axis=1, ddof=1)[:, None] / np.sqrt(sizes)
    short = np.divide(means, error, out=np.zeros_like(means), where=error > 0)
    model, group = np.unravel_index(int(np.argmin(short)), short.shape)
    return (1 + reached) / (1 + draws), int(model), str(names[group])


def _between(values: FloatArray, starts: IntArray, sizes: IntArray) -> FloatArray:
    """(draws,) the largest share of variance between groups; (models, draws, patients) by group."""
    sums = np.add.reduceat(values, starts, axis=2)
    return (((sums**2) / sizes).sum(axis=2) / (values**2).sum(axis=2)).max(axis=0)
