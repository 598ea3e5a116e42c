"""Six ways to turn a table into an order of models, each computed for many resamples at once.

A `Scheme` is prepared once for a table and then asked for scores given case counts: the plain ranking is the
count vector of ones, leaving a case out is a zero, a bootstrap draw is any row of counts. So the ranking that
is printed and the draws that judge it come from the same arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from segbench.stats.arrays import FloatArray, IntArray, choice
from segbench.stats.laws import normal_cdf
from segbench.stats.resampling import weighted_medians

SCHEMES = (
    "mean_then_rank",
    "median_then_rank",
    "rank_then_mean",
    "rank_then_median",
    "test_then_rank_none",
    "test_then_rank_holm",
)
CACHED_COUNTS = (
    32_000  # counts at a time in the signed-rank bootstrap: its temporaries then stay in the cache
)
DECIMALS = 12  # aggregates are rounded before ranking, so float noise cannot break a tie

Scores: TypeAlias = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A ranking scheme bound to a table.

    Attributes:
        scores: (draws, cases) counts -> (draws, models, series) scores.
        without_each: (cases, models, series) scores with one case left out, in closed form.
        higher_is_better: (series,) direction of the scores (not of the metric).
    """

    scores: Scores
    without_each: Callable[[], FloatArray]
    higher_is_better: FloatArray


def prepare_scheme(table: FloatArray, scheme: str, higher_is_better: FloatArray, alpha: float) -> Scheme:
    """`scheme` bound to `table` (cases, models, series); `higher_is_better` is (series,) of +1 and -1."""
    choice(scheme, SCHEMES, "scheme")
    if scheme.startswith("test"):
        return _by_tests(table * higher_is_better, alpha, holm=scheme.endswith("holm"))
    values, direction = table, higher_is_better
    if scheme.startswith("rank"):
        # The rank within a case is one more than the number of better models: as from scores, case for draw
        values = ranks_from_scores(table * higher_is_better).astype(np.float64)
        direction = np.full_like(higher_is_better, -1.0)
    by_mean = scheme in ("mean_then_rank", "rank_then_mean")
    return _by_means(values, direction) if by_mean else _by_medians(values, direction)


def _by_means(table: FloatArray, direction: FloatArray) -> Scheme:
    """Models by the mean over cases."""
    cases, models, series = table.shape
    flat = np.ascontiguousarray(table.reshape(cases, -1))

    def scores(counts: FloatArray) -> FloatArray:
        return ((counts @ flat) / counts.sum(axis=1, keepdims=True)).reshape(-1, models, series)

    def without_each() -> FloatArray:
        return ((flat.sum(axis=0) - flat) / (cases - 1)).reshape(-1, models, series)

    return Scheme(scores, without_each, direction)


def _by_medians(table: FloatArray, direction: FloatArray) -> Scheme:
    """Models by the median over cases."""
    cases, models, series = table.shape
    flat = np.ascontiguousarray(table.reshape(cases, -1))
    order = np.argsort(flat, axis=0, kind="stable")

    def scores(counts: FloatArray) -> FloatArray:
        return weighted_medians(flat, order, counts).reshape(-1, models, series)

    def without_each() -> FloatArray:
        return _medians_without_each(flat).reshape(-1, models, series)

    return Scheme(scores, without_each, direction)


def _by_tests(table: FloatArray, alpha: float, *, holm: bool) -> Scheme:
    """Models by the number of rivals they beat; larger values of `table` are better."""
    series = range(table.shape[2])

    def scores(counts: FloatArray) -> FloatArray:
        return np.stack([rivals_beaten(table[:, :, s], counts, alpha, holm) for s in series], axis=2)

    def without_each() -> FloatArray:
        return np.stack([_rivals_beaten_without_each(table[:, :, s], alpha, holm) for s in series], axis=2)

    return Scheme(scores, without_each, np.ones(len(series), dtype=np.float64))


def oriented(scores: FloatArray, scheme: Scheme) -> FloatArray:
    """Scores rounded and turned so that larger is better."""
    return np.round(scores, DECIMALS) * scheme.higher_is_better


def ranks_from_scores(scores: FloatArray) -> IntArray:
    """(draws, models, series) ranks, larger scores are better; 1 is best, ties share the smaller rank."""
    places = np.ones(scores.shape, dtype=np.int64)
    for rival in range(scores.shape[1]):
        places += scores[:, rival : rival + 1] > scores
    return places


def rivals_beaten(table: FloatArray, counts: FloatArray, alpha: float, holm: bool) -> FloatArray:
    """(draws, models) number of rivals each model beats in the one-sided signed-rank test.

    Args:
        table: (cases, models), larger is better.
        counts: (draws, cases) how often each case occurs.
        alpha: a rival is beaten when p <= alpha.
        holm: adjust over all k(k-1) ordered pairs.
    """
    rows = max(8, CACHED_COUNTS // counts.shape[1])
    parts = [
        np.ascontiguousarray(counts[start : start + rows].T) for start in range(0, counts.shape[0], rows)
    ]
    wins = [
        _count_wins(table, part.shape[1], partial(one_sided_z, counts=part), alpha, holm) for part in parts
    ]
    return np.concatenate(wins)


def _rivals_beaten_without_each(table: FloatArray, alpha: float, holm: bool) -> FloatArray:
    """(cases, models) number of rivals each model beats when one case is left out."""
    return _count_wins(table, table.shape[0], one_sided_z_without_each, alpha, holm)


def _count_wins(
    table: FloatArray,
    draws: int,
    z_values: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    alpha: float,
    holm: bool,
) -> FloatArray:
    """(draws, models) rivals beaten, given a way to both one-sided z of a pair's differences."""
    models = table.shape[1]
    pvalues = np.ones((draws, models, models))
    for first in range(models):
        for second in range(first + 1, models):
            z_first, z_second = z_values(table[:, first] - table[:, second])
            pvalues[:, first, second] = normal_cdf(-z_first)
            pvalues[:, second, first] = normal_cdf(-z_second)
    if holm and models > 1:
        pvalues = _holm_ordered_pairs(pvalues)
    beaten = pvalues <= alpha
    beaten[:, range(models), range(models)] = False
    return beaten.sum(axis=2).astype(np.float64)


def _holm_ordered_pairs(pvalues: FloatArray) -> FloatArray:
    """Holm-adjusted copy of (draws, models, models) p-values over the k(k-1) entries off the diagonal."""
    draws, models, _ = pvalues.shape
    off = ~np.eye(models, dtype=bool)
    flat = pvalues[:, off]
    order = np.argsort(flat, axis=1, kind="stable")
    ordered = np.asarray(np.take_along_axis(flat, order, axis=1), dtype=np.float64)
    factors: FloatArray = np.arange(flat.shape[1], 0, -1, dtype=np.float64)
    stepped = np.maximum.accumulate(np.multiply(ordered, factors, dtype=np.float64), axis=1)
    adjusted = np.empty_like(flat)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=1)
    result = np.ones((draws, models, models))
    result[:, off] = adjusted
    return result


def one_sided_z(differences: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(draws,) z of `greater`, and that of `less` with its sign turned; -inf where no difference is left.

    |d| is sorted once; a draw's average ranks follow from cumulative counts, so a draw costs no sort.

    Args:
        differences: (cases,).
        counts: (cases, draws) how often each case occurs.
    """
    kept = np.flatnonzero(differences)
    kept = kept[np.argsort(np.abs(differences[kept]), kind="stable")]
    if kept.size == 0:
        nothing = np.full(counts.shape[1], -np.inf)
        return nothing, nothing.copy()
    size = np.abs(differences[kept])
    positive = (differences[kept] > 0)[:, None]
    drawn = counts[kept]
    up = drawn * positive
    starts = np.flatnonzero(np.concatenate([[True], size[1:] != size[:-1]]))
    if starts.size < kept.size:  # equal |d| form one group, whatever their sign
        up, drawn = np.add.reduceat(up, starts, axis=0), np.add.reduceat(drawn, starts, axis=0)
    reached = np.cumsum(drawn, axis=0)
    total = reached[-1]
    middle = reached - (drawn - 1) / 2  # average rank of the group
    w_plus = np.einsum("gb,gb->b", up, middle)
    ties = np.einsum("gb,gb->b", drawn * drawn, drawn) - total
    return _z_pair(w_plus, total, ties)


def _z_pair(w_plus: FloatArray, total: FloatArray, ties: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Z of `greater` and of `less` with its sign turned, from W+, the number of ranks and sum(t^3 - t)."""
    mean = total * (total + 1) / 4
    variance = total * (total + 1) * (2 * total + 1) / 24 - ties / 48
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(variance)
        greater = np.where(total > 0, (w_plus - mean - 0.5) / spread, -np.inf)
        less = np.where(total > 0, (mean - w_plus - 0.5) / spread, -np.inf)
    return greater, less


def one_sided_z_without_each(differences: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(cases,) `one_sided_z` with one case left out, for each case, in one pass.

    Without a case the ranks above its |d| fall by 1 and those tied with it by 1/2; a zero had no rank.
    """
    nonzero = differences != 0
    size = np.abs(differences[nonzero])
    positive = (differences[nonzero] > 0).astype(np.float64)
    _, group, counts = np.unique(size, return_inverse=True, return_counts=True)
    up = np.bincount(group, weights=positive, minlength=counts.size)
    middle = np.cumsum(counts) - (counts - 1) / 2
    w_plus = float(up @ middle)
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    above = up.sum() - np.cumsum(up)  # positive differences of larger size
    tied = counts[group].astype(np.float64)
    left = w_plus - positive * middle[group] - above[group] - (up[group] - positive) / 2
    left_ties = ties - (tied**3 - tied) + ((tied - 1) ** 3 - (tied - 1))
    total = float(size.size)
    w_each = np.full(differences.size, w_plus)
    total_each = np.full(differences.size, total)
    ties_each = np.full(differences.size, ties)
    w_each[nonzero], total_each[nonzero], ties_each[nonzero] = left, total - 1, left_ties
    return _z_pair(w_each, total_each, ties_each)


def _medians_without_each(values: FloatArray) -> FloatArray:
    """(cases, series) medians with one case left out: the middle moves by at most one place."""
    cases = values.shape[0]
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    place = np.argsort(order, axis=0)  # of each case in its sorted series
    lower, upper = (cases - 2) // 2, (cases - 1) // 2  # 0-based places of the middle of cases - 1 values
    left = np.where(place > lower, ordered[lower], ordered[lower + 1])
    right = np.where(place > upper, ordered[upper], ordered[min(upper + 1, cases - 1)])
    return np.asarray((left + right) / 2, dtype=np.float64)
