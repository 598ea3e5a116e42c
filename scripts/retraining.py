"""How often tests call retrainings of one network different, over pairs and disjoint sets of runs.

Every such call is a false claim. `segbench.stats.null_check` counts them for one report; a null board asks
for many numbers of cases, for sets of runs, and for an interval that knows that pairs share runs.
"""

from __future__ import annotations

from itertools import combinations
from math import comb, floor

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, t

from segbench.stats import Interval, wilcoxon_signed_rank
from segbench.stats.arrays import noise_floor, without_noise
from segbench.stats.family import decide, pair_tests
from segbench.stats.laws import ranks
from segbench.stats.paired import EXACT_UP_TO

FEWEST_LEFT = 2  # comparisons that must remain without a run, or the interval of a share is not given

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def disjoint_sets(runs: int, size: int, *, most: int = 10_000, seed: int = 0) -> IntArray:
    """(comparisons, 2, size): two disjoint sets of `size` runs each, numbered from 0.

    All that there are, or `most` random ones where there are more.

    Raises:
        ValueError: fewer than two sets' runs.
    """
    if runs < 2 * size:
        raise ValueError(f"two sets of {size} need {2 * size} runs, found {runs}")
    if comb(runs, size) * comb(runs - size, size) // 2 > most:
        rng = np.random.Generator(np.random.PCG64(seed))
        drawn = np.argsort(rng.random((most, runs)), axis=-1)[:, : 2 * size]
        return drawn.reshape(most, 2, size).astype(np.int64)
    sets = [
        (first, second)
        for first in combinations(range(runs), size)
        for second in combinations([run for run in range(runs) if run not in first], size)
        if first < second
    ]
    return np.array(sets, dtype=np.int64)


def wilcoxon_pvalues(values: FloatArray, pairs: IntArray) -> FloatArray:
    """(pairs,) p of the usual one-run test: Wilcoxon's signed rank over the cases of two runs.

    Args:
        values: (runs, cases).
        pairs: (pairs, 2, 1), from `disjoint_sets`.
    """
    return signed_rank_pvalues(values[pairs[:, 0, 0]], values[pairs[:, 1, 0]])


def signed_rank_pvalues(x: FloatArray, y: FloatArray) -> FloatArray:
    """(tests,) two-sided p of `wilcoxon_signed_rank` for each row of (tests, cases), all at once.

    The exact law depends on the ranks alone, so rows that share them share their law.
    """
    floors = [noise_floor(*row) for row in zip(x, y, strict=True)]
    differences = without_noise(x - y, np.array(floors)[:, None])
    zeros = (differences == 0).sum(axis=-1)
    averages = ranks(np.abs(differences), ties="average", axis=-1) - zeros[:, None]
    doubled = np.where(differences == 0, 0, np.rint(2 * averages)).astype(np.int64)
    w_plus = np.where(differences > 0, doubled, 0).sum(axis=-1)
    pvalues = np.ones(len(differences))
    few = differences.shape[-1] - zeros <= EXACT_UP_TO
    for row in np.flatnonzero(~few):
        pvalues[row] = wilcoxon_signed_rank(x[row], y[row]).pvalue
    exact = np.flatnonzero(few)
    if exact.size:
        shared, law_of = np.unique(np.sort(doubled[exact], axis=-1), axis=0, return_inverse=True)
        rows_of = np.split(np.argsort(law_of, kind="stable"), np.cumsum(np.bincount(law_of))[:-1])
        for steps, rows in zip(shared, rows_of, strict=True):
            law, at = _law(steps), w_plus[exact[rows]]
            below, above = np.cumsum(law)[at], np.cumsum(law[::-1])[law.size - 1 - at]
            pvalues[exact[rows]] = np.minimum(1.0, 2 * np.minimum(below, above))
    return pvalues


def _law(doubled: IntArray) -> FloatArray:
    """P(2 W+ = 0, 1, 2, ...) over all sign patterns of the doubled ranks."""
    law = np.zeros(int(doubled.sum()) + 1)
    law[0] = 1.0
    for step in doubled[doubled > 0]:
        moved = np.zeros_like(law)
        moved[step:] = law[: law.size - step]
        law = (law + moved) / 2
    return law


def model_pvalues(values: FloatArray, sets: IntArray) -> FloatArray:
    """(comparisons,) p of `compare_models` for two models whose training runs are the two sets.

    With one run a side it is the paired t-test, with more the two-level test.

    Args:
        values: (runs, cases).
        sets: (comparisons, 2, size), from `disjoint_sets`.
    """
    models = [values[sets[:, 0]], values[sets[:, 1]]]
    return decide(*pair_tests(models, [(0, 1)], floor=noise_floor(values)))[1][:, 0]


def share_interval(
    called: FloatArray | NDArray[np.bool_], sets: IntArray, runs: int, *, confidence: float = 0.95
) -> Interval:
    """The share of comparisons called different, with an interval over retrainings.

    Comparisons share runs, so they are no independent trials: the variance is the jackknife's over runs. It
    gives the number of independent trials that would be as informative (at least the disjoint comparisons
    that the runs allow, at most all of them), and these have Clopper and Pearson's interval.

    Args:
        called: (comparisons,) whether the two sets are called different, or how often over draws of cases.
        sets: (comparisons, 2, size) runs of each.
        runs: number of runs in all; `n` of the result.
        confidence: nominal level.

    Returns:
        The interval; its ends are nan where leaving a run out leaves fewer than two comparisons.

    **Source:** Hoeffding 1948 (variance of U-statistics); Korn and Graubard 1998 (effective trials).
    """
    claims = np.asarray(called, dtype=np.float64)
    share = float(claims.mean())
    taking_part = np.zeros((len(sets), runs))
    np.put_along_axis(taking_part, sets.reshape(len(sets), -1), 1.0, axis=-1)
    left = len(sets) - taking_part.sum(axis=0)
    method = "jackknife over runs, effective trials"
    if left.min() < FEWEST_LEFT:
        return Interval(share, float("nan"), float("nan"), confidence, method, runs, "too few runs")
    without = (claims.sum() - claims @ taking_part) / left
    variance = (runs - 1) / runs * float(((without - without.mean()) ** 2).sum())
    fewest = max(1, floor(runs / sets[0].size))
    trials = share * (1 - share) / variance if variance > 0 else fewest
    level = (1 + confidence) / 2
    trials *= float(norm.ppf(level) / t.ppf(level, runs - 1)) ** 2
    trials = min(max(trials, fewest), len(sets))
    hits = share * trials
    low = float(beta.ppf(1 - level, hits, trials - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(level, hits + 1, trials - hits)) if hits < trials else 1.0
    return Interval(share, low, high, confidence, method, runs, "")
