"""Can this dataset rank methods? Spread between models against spread of retraining, and the seeds of each
model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segbench.report.block import Block, ModelScores, nan_mean
from segbench.report.display import MetricDisplay
from segbench.report.missing import NOT_RUN, FloatArray


@dataclass(frozen=True, slots=True)
class Discrimination:
    """Between-model spread over within-model spread of one column; None where unknown."""

    block: Block
    region: str
    metric: str
    sd_between: float | None
    sd_within: float | None
    ratio: float | None
    within: str
    cannot_rank: bool


def discriminate(block: Block, region: str, metric: MetricDisplay) -> Discrimination:
    """Whether the models of a block differ by more than the noise of retraining (or of folds)."""
    from segbench.stats import discrimination

    empty = Discrimination(block, region, metric.name, None, None, None, "", cannot_rank=False)
    tables = [_series(block, scores, region, metric.name) for scores in block.ranked]
    tables = [table for table in tables if table is not None]
    if len(tables) < 2 or metric.higher_is_better is None:
        return empty
    found = discrimination(tables)
    return Discrimination(
        block,
        region,
        metric.name,
        _known(found.sd_between),
        _known(found.sd_within),
        _known(found.ratio),
        found.within,
        cannot_rank=bool(found.cannot_rank),
    )


def _series(block: Block, scores: ModelScores, region: str, metric: str) -> FloatArray | None:
    """(seeds, cases), or with one seed (folds, cases) with NaN outside of a fold's cases; None with an
    infinity.
    """
    table = block.per_seed(scores, region, metric)
    if np.any(np.isinf(table)) or not np.any(np.isfinite(table)):
        return None
    if table.shape[0] > 1:
        complete = ~np.any(np.isnan(table), axis=0)
        return table[:, complete] if complete.any() else None
    folds = np.array(block.folds)
    rows = np.full((len(scores.folds), table.shape[1]), np.nan)
    for place, fold in enumerate(scores.folds):
        rows[place, folds == fold] = table[0, folds == fold]
    rows = rows[np.any(np.isfinite(rows), axis=1)]
    return rows[:, np.any(np.isfinite(rows), axis=0)]


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """Spread of one model over its training runs in one column; None where there are too few.

    Attributes:
        means: mean over cases of each seed, None where undefined.
        sd_seeds: SD of these means, ddof 1.
        sd_cases: SD over cases of the seed-averaged values, ddof 1.
        ratio: sd_seeds / sd_cases.
    """

    block: Block
    region: str
    metric: str
    model: str
    seeds: tuple[int, ...]
    means: tuple[float | None, ...]
    sd_seeds: float | None
    sd_cases: float | None
    ratio: float | None


def seed_spread(block: Block, region: str, metric: str, scores: ModelScores) -> SeedSpread:
    """How far retraining moves a model's mean, beside how far cases differ."""
    table = block.per_seed(scores, region, metric)
    table = np.where(np.isfinite(table), table, np.nan)
    means = nan_mean(table, axis=1)
    known = means[~np.isnan(means)]
    cases = block.per_case(scores, region, metric)
    cases = cases[np.isfinite(cases)]
    sd_seeds = float(known.std(ddof=1)) if known.size >= 2 else None
    sd_cases = float(cases.std(ddof=1)) if cases.size >= 2 else None
    return SeedSpread(
        block=block,
        region=region,
        metric=metric,
        model=scores.model,
        seeds=scores.seeds,
        means=tuple(None if np.isnan(value) else float(value) for value in means),
        sd_seeds=sd_seeds,
        sd_cases=sd_cases,
        ratio=sd_seeds / sd_cases if sd_seeds is not None and sd_cases else None,
    )


def coverage_differs(block: Block) -> bool:
    """Whether models were to score different cases (folds that only some have run)."""
    masks = {scores.covered.tobytes() for scores in block.ranked}
    return len(masks) > 1


def seeds_differ(block: Block) -> bool:
    """Whether models have unequal numbers of seeds."""
    return len({len(scores.seeds) for scores in block.ranked}) > 1


def not_run(scores: ModelScores) -> int:
    """Cases of the block that no run of the model was to score."""
    return int(np.all(scores.status == NOT_RUN, axis=(0, 2)).sum())
