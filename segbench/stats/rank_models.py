"""How far to trust the order of models when training seeds and patients are drawn again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segbench.stats.arrays import (
    FloatArray,
    IntArray,
    generator,
    open_unit,
    positive_count,
    read_only_float,
    read_only_int,
)
from segbench.stats.comparison import FEWEST_PATIENTS
from segbench.stats.differ import omnibus
from segbench.stats.family import seed_variance
from segbench.stats.moderation import moderate
from segbench.stats.resampling import count_blocks
from segbench.stats.scores import checked_scores

SEED_STREAM = 1_000_003  # the seeds are drawn from a stream of their own


@dataclass(frozen=True, slots=True, eq=False)
class RankStability:
    """What the ranking would look like with other cases of the same kind and other seeds.

    Attributes:
        ranks: (models,) on all cases; 1 is best, ties share the smaller rank.
        frequencies: (models, ranks) share of draws with rank 1, 2, ...; nan where nothing tells models apart.
        probability_best: (models,) share of draws with rank 1; tied winners each count.
        rank_low, rank_high: (models,) percentile interval per model, **not** simultaneous.
        kendall_tau: (resamples,) tau-b of a draw's ranks against `ranks`; nan where one is all ties.
        means, mean_low, mean_high: (models,) mean with its percentile interval from the same draws.
        leave_one_out_winner_changes: cases whose removal changes the set of winners.
        scheme, resamples, seed, n: what was done; n is the number of cases.
        models: their names.
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
    leave_one_out_winner_changes: int
    scheme: str
    resamples: int
    seed: int
    n: int
    models: tuple[str, ...]


def rank_models(
    scores: Mapping[str, ArrayLike],
    *,
    higher_is_better: bool = True,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    patients: ArrayLike | None = None,
) -> RankStability:
    """The order of the models by their means, and what it would be with other seeds and other patients.

    Every draw takes patients, the same for all models, and training seeds, separately for each model. The
    deviations of the seeds are stretched by sqrt(S / (S - 1)), since S drawn seeds spread less than S new
    ones, and to the moderated variance of `compare_models`, since S seeds may happen to lie close together.
    The model that comes out on top was also lucky: for `frequencies` and `probability_best` the means are
    first drawn together to the part of their spread that chance does not explain (`reliability_low` of
    `models_differ`). Where that is nothing, both are nan: a share of draws would name the noisiest model.
    With one seed for any model, or too few patients for a verdict, there is only an order: `frequencies`,
    `probability_best`, `mean_low` and `mean_high` are nan, `rank_low`, `rank_high` and `kendall_tau` empty.

    Args:
        scores: per model (seeds, cases), the same cases in the same order.
        higher_is_better: direction of the metric.
        resamples: draws.
        confidence: level of the intervals of ranks and means.
        seed: of the draws.
        patients: (cases,) labels; the images of a patient are averaged first.

    Returns:
        A RankStability over the models in the order given; `models` names them.

    Raises:
        StatsError: fewer than 2 models, unequal cases, NaN or inf.

    **Source:** Wiesenfarth et al. 2021 (bootstrap of ranks); simulated coverage in `tests/stats`.
    """
    open_unit(confidence, "confidence")
    positive_count(resamples, "resamples")
    checked = checked_scores(scores, patients=patients)
    values = list(checked.values())
    k, n = len(values), values[0].shape[1]
    averages = np.stack([model.mean(axis=0) for model in values])
    means = averages.mean(axis=1)
    sign = 1.0 if higher_is_better else -1.0
    ranks = ranks_from_scores(_oriented(means[None], sign))[0]
    nan = np.full(k, np.nan)
    low, high, tau = np.empty(0), np.empty(0), np.empty(0)
    frequencies, mean_low, mean_high = np.full((k, k), np.nan), nan, nan
    if n >= FEWEST_PATIENTS and min(model.shape[0] for model in values) > 1:
        draws = drawn_means(values, averages, resamples=resamples, seed=seed)
        found, taus = ranks_and_tau(_oriented(draws, sign), ranks)
        tau = taus[:, 0]
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        low, high = rank_interval(_tally(found), tails, resamples)
        if (told_apart := omnibus(values).reliability_low) > 0:
            together = draws - (1 - told_apart) * (means - means.mean())
            frequencies = _tally(ranks_and_tau(_oriented(together, sign), ranks)[0]) / resamples
        mean_low, mean_high = np.quantile(draws, tails, axis=0)
    changes = 0
    if n > 1:
        without_each = ranks_from_scores(_oriented((means * n - averages.T) / (n - 1), sign))
        changes = int(((without_each == 1) != (ranks == 1)).any(axis=(1, 2)).sum())
    return RankStability(
        ranks=read_only_int(ranks[:, 0]),
        frequencies=read_only_float(frequencies),
        probability_best=read_only_float(frequencies[:, 0]),
        rank_low=read_only_int(low),
        rank_high=read_only_int(high),
        kendall_tau=read_only_float(tau),
        means=read_only_float(means),
        mean_low=read_only_float(mean_low),
        mean_high=read_only_float(mean_high),
        leave_one_out_winner_changes=changes,
        scheme="mean_then_rank",
        resamples=resamples,
        seed=seed,
        n=n,
        models=tuple(checked),
    )


def _tally(ranks: NDArray[np.int16]) -> IntArray:
    """(models, ranks) draws in which a model had each rank, from zero-based `ranks` (draws, models, 1)."""
    return np.stack([(ranks[:, :, 0] == rank).sum(axis=0) for rank in range(ranks.shape[1])], axis=1)


def _oriented(means: FloatArray, sign: float) -> FloatArray:
    """(draws, models, 1) means with the better one larger, rounded so that rounding noise breaks no tie."""
    return np.asarray(sign * np.round(means, 12), dtype=np.float64)[:, :, None]


def drawn_means(values: list[FloatArray], averages: FloatArray, *, resamples: int, seed: int) -> FloatArray:
    """(resamples, models) means over drawn patients and drawn seeds."""
    seeds = [model.shape[0] for model in values]
    own = np.array([float(seed_variance(model)) for model in values])
    moderated, _ = moderate(own, np.array(seeds) - 1.0)
    stretch = np.sqrt(np.where(own > 0, moderated / np.where(own > 0, own, 1.0), 1.0))
    stretched = [
        average + (model - average) * factor * np.sqrt(number / (number - 1))
        for model, average, factor, number in zip(values, averages, stretch, seeds, strict=True)
    ]
    rows = np.concatenate(stretched).T  # (patients, seeds of all models)
    rng = generator(seed + SEED_STREAM)
    starts = np.concatenate([[0], np.cumsum(seeds)[:-1]])
    means = np.empty((resamples, len(values)))
    done = 0
    for counts in count_blocks(rows.shape[0], resamples=resamples, seed=seed):
        block = (counts @ rows) / rows.shape[0]  # mean of each seed over the drawn patients
        drawn = np.concatenate(
            [
                start + rng.integers(0, number, (block.shape[0], number))
                for start, number in zip(starts, seeds, strict=True)
            ],
            axis=1,
        )
        picked = np.take_along_axis(block, drawn, axis=1)
        means[done : done + block.shape[0]] = np.add.reduceat(picked, starts, axis=1) / seeds
        done += block.shape[0]
    return means


def ranks_from_scores(scores: FloatArray) -> IntArray:
    """(draws, models, series) ranks, larger scores are better; 1 is best, ties share the smaller rank."""
    places = np.ones(scores.shape, dtype=np.int64)
    for rival in range(scores.shape[1]):
        places += scores[:, rival : rival + 1] > scores
    return places


def rank_interval(tally: IntArray, tails: Sequence[float], resamples: int) -> tuple[IntArray, IntArray]:
    """Percentiles of each model's ranks; `tally` (models, ranks, ...) is how often it had each of them."""
    reached = np.cumsum(tally, axis=1)  # draws with rank <= r
    low, high = (1 + (reached < np.ceil(tail * resamples - 1e-9)).sum(axis=1) for tail in tails)
    return low, high


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
