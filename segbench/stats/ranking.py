"""The order of the models, and how far to trust it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segbench.stats.arrays import (
    FloatArray,
    IntArray,
    finite_array,
    open_unit,
    positive_count,
    read_only_float,
    read_only_int,
)
from segbench.stats.errors import StatsError
from segbench.stats.resampling import count_blocks, group_index
from segbench.stats.schemes import Scheme, oriented, prepare_scheme, ranks_from_scores


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Ranks of the models, 1 is best, ties share the smaller rank; `scores` is what was ranked."""

    ranks: IntArray  # (models,)
    scores: FloatArray  # (models,)
    scheme: str
    higher_is_better: bool


@dataclass(frozen=True, slots=True, eq=False)
class RankStability:
    """What the ranking would look like on other cases of the same kind (`rank_models`: and other seeds).

    `[, series]` is there when the table had a series axis.

    Attributes:
        ranks: (models[, series]) on all cases.
        frequencies: (models, ranks[, series]) share of draws with rank 1, 2, ...
        probability_best: (models[, series]) share of draws with rank 1; tied winners each count.
        rank_low, rank_high: (models[, series]) percentile interval per model, **not** simultaneous.
        kendall_tau: (resamples[, series]) tau-b of a draw's ranks against `ranks`; nan where one is all ties.
        means, mean_low, mean_high: (models[, series]) mean with its percentile interval from the same draws.
        leave_one_out_winner_changes: a number, or (series,): cases whose removal changes the set of winners.
        scheme, resamples, seed, n: what was done; n is the number of cases.
        models: their names, where they were given with names.
    """

    ranks: IntArray
    frequencies: FloatArray
    probability_best: FloatArray
    rank_low: IntArray
    rank_high: IntArray
    kendall_tau: FloatArray
    means: FloatArray
    mean_low: FloatArray
    mean_high: FloatArray
    leave_one_out_winner_changes: int | IntArray
    scheme: str
    resamples: int
    seed: int
    n: int
    models: tuple[str, ...] = ()


def rank_cases(
    table: ArrayLike, *, scheme: str = "mean_then_rank", higher_is_better: bool = True, alpha: float = 0.05
) -> Ranking:
    """The order of the models on a table of cases.

    Args:
        table: (cases, models).
        scheme: `mean_then_rank`, `median_then_rank`: aggregate over cases, then rank. `rank_then_mean`,
            `rank_then_median`: rank within each case (ties share the smaller rank), aggregate, rank.
            `test_then_rank_none`, `test_then_rank_holm`: number of rivals beaten at `alpha` in the one-sided
            signed-rank test, `_holm` adjusted over all ordered pairs. Aggregates are rounded to 12 decimals.
        higher_is_better: direction of the metric.
        alpha: level of the tests.

    Raises:
        StatsError: NaN or inf, wrong shape, unknown scheme.

    **Source:** Wiesenfarth et al. 2021 (challengeR); Maier-Hein et al. 2018.
    """
    values = finite_array(table, "table", ndim=2)
    open_unit(alpha, "alpha")
    bound = prepare_scheme(values[:, :, None], scheme, _directions(higher_is_better, 1), alpha)
    counts = np.ones((1, values.shape[0]))
    scores = bound.scores(counts)
    ranks = ranks_from_scores(oriented(scores, bound))[0, :, 0]
    return Ranking(read_only_int(ranks), read_only_float(scores[0, :, 0]), scheme, higher_is_better)


def _directions(higher_is_better: bool | Sequence[bool], series: int) -> FloatArray:
    """(series,) of +1 and -1."""
    flags = np.asarray(higher_is_better, dtype=bool)
    if flags.ndim and flags.shape != (series,):
        raise StatsError(f"higher_is_better: expected one value or {series}, found shape {flags.shape}")
    return np.where(np.broadcast_to(flags, (series,)), 1.0, -1.0)


def rank_stability(
    table: ArrayLike,
    *,
    scheme: str = "mean_then_rank",
    higher_is_better: bool | Sequence[bool] = True,
    resamples: int = 10_000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> RankStability:
    """How the ranking holds up under resampling of the cases, and under leaving one out.

    The drawn cases are shared by all models and series, and by every call with the same seed and cases.

    Args:
        table: (cases, models) or (cases, models, series), series being regions and metrics.
        scheme: as in `rank_cases`; `test_then_rank_*` costs more, 1,000 draws are usual.
        higher_is_better: one direction, or one per series.
        resamples: bootstrap draws.
        seed: of the draws.
        groups: (cases,) labels, such as patients; whole groups are drawn.
        confidence: level of the rank and mean intervals.

    Raises:
        StatsError: fewer than 2 cases, NaN or inf, wrong shape, unknown scheme.

    **Source:** Wiesenfarth et al. 2021 (bootstrap of ranks, Kendall's tau against the full ranking).
    """
    open_unit(confidence, "confidence")
    positive_count(resamples, "resamples")
    values = finite_array(table, "table", ndim=(2, 3))
    flat_series = values.ndim == 2
    values = values[:, :, None] if flat_series else values
    cases, models, series = values.shape
    if cases < 2:
        raise StatsError("stability needs at least 2 cases, found 1")
    direction = _directions(higher_is_better, series)
    bound = prepare_scheme(values, scheme, direction, 0.05)
    ones = np.ones((1, cases))
    full = ranks_from_scores(oriented(bound.scores(ones), bound))[0]
    flat = np.ascontiguousarray(values.reshape(cases, -1))
    draws = _draw(bound, full, flat, scheme, resamples, seed, group_index(groups, cases))

    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = rank_interval(draws.tally, tails, resamples)
    mean_low, mean_high = quantiles_by_column(draws.means, tails).reshape(2, models, series)
    frequencies = draws.tally / resamples
    winners = ranks_from_scores(oriented(bound.without_each(), bound)) == 1
    changes = (winners != (full == 1)).any(axis=1).sum(axis=0)

    def shaped(array: FloatArray | IntArray) -> FloatArray | IntArray:
        """Without the series axis when the table had none."""
        return array[..., 0] if flat_series else array

    return RankStability(
        ranks=read_only_int(shaped(full)),
        frequencies=read_only_float(shaped(frequencies)),
        probability_best=read_only_float(shaped(frequencies[:, 0])),
        rank_low=read_only_int(shaped(low)),
        rank_high=read_only_int(shaped(high)),
        kendall_tau=read_only_float(shaped(draws.tau)),
        means=read_only_float(shaped(values.mean(axis=0))),
        mean_low=read_only_float(shaped(mean_low)),
        mean_high=read_only_float(shaped(mean_high)),
        leave_one_out_winner_changes=int(changes[0]) if flat_series else read_only_int(changes),
        scheme=scheme,
        resamples=resamples,
        seed=seed,
        n=cases,
    )


def rank_interval(tally: IntArray, tails: Sequence[float], resamples: int) -> tuple[IntArray, IntArray]:
    """Percentiles of each model's ranks; `tally` (models, ranks, ...) is how often it had each of them."""
    reached = np.cumsum(tally, axis=1)  # draws with rank <= r
    low, high = (1 + (reached < np.ceil(tail * resamples - 1e-9)).sum(axis=1) for tail in tails)
    return low, high


@dataclass(frozen=True, slots=True)
class _Draws:
    """What is kept of the bootstrap: rank tallies, tau and the means."""

    tally: IntArray  # (models, ranks, series)
    tau: FloatArray  # (resamples, series)
    means: FloatArray  # (resamples, models * series)


def _draw(
    scheme: Scheme,
    full: IntArray,
    flat: FloatArray,
    name: str,
    resamples: int,
    seed: int,
    groups: IntArray | None,
) -> _Draws:
    """Run the bootstrap in blocks; memory is bounded by the block, not by the number of draws."""
    models, series = full.shape
    tally = np.zeros((models, models, series), dtype=np.int64)
    tau = np.empty((resamples, series))
    means = np.empty((resamples, models * series))
    row_bytes = 8 * max(1, models * series // flat.shape[0])
    done = 0
    for counts in count_blocks(
        flat.shape[0], resamples=resamples, seed=seed, groups=groups, row_bytes=row_bytes
    ):
        rows = slice(done, done + counts.shape[0])
        means[rows] = (counts @ flat) / counts.sum(axis=1, keepdims=True)
        if name == "mean_then_rank":
            scores = oriented(means[rows].reshape(-1, models, series), scheme)
        else:
            scores = oriented(scheme.scores(counts), scheme)
        ranks, tau[rows] = ranks_and_tau(scores, full)
        for rank in range(models):
            tally[:, rank] += (ranks == rank).sum(axis=0)
        done += counts.shape[0]
    return _Draws(tally, tau, means)


def ranks_and_tau(scores: FloatArray, full: IntArray) -> tuple[NDArray[np.int16], FloatArray]:
    """Zero-based ranks (draws, models, series) and Kendall's tau-b (draws, series) against `full`.

    Each comparison of a model with a rival serves both: it adds to the rank, and it agrees or disagrees with
    the order of the two in `full`.
    """
    models, series = full.shape
    ranks = np.zeros(scores.shape, dtype=np.int16)
    agreement = np.zeros(scores.shape, dtype=np.int16)
    for rival in range(models):
        ahead = (scores[:, rival : rival + 1] > scores).view(np.int8)
        ranks += ahead
        agreement += ahead * np.sign(full - full[rival]).astype(np.int8)
    untied = ranks.sum(axis=1, dtype=np.int64)  # each strictly ordered pair was counted once
    untied_full = np.array([(full[:, s, None] > full[None, :, s]).sum() for s in range(series)], dtype=float)
    with np.errstate(invalid="ignore"):  # 0 / 0 where one of the two is all ties
        tau = agreement.sum(axis=1, dtype=np.int64) / np.sqrt(untied * untied_full)
    return ranks, tau


def quantiles_by_column(draws: FloatArray, levels: Sequence[float]) -> FloatArray:
    """(levels, columns) linear-interpolated quantiles of each column."""
    return np.quantile(draws, levels, axis=0)
