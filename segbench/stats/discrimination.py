"""Can this dataset rank these methods at all?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, noise_floor, real_numbers
from segbench.stats.errors import StatsError


@dataclass(frozen=True, slots=True)
class DiscriminationResult:
    """Spread between methods against the spread of one method.

    Attributes:
        sd_between: SD over models of their means.
        sd_within: root mean over models of the variance of per-seed (or per-fold) means; None when unknown.
        ratio: sd_between / sd_within; None when sd_within is unknown.
        within: `seeds`, `folds`, or "" when unknown.
        cannot_rank: the ratio is known and below 1.
    """

    sd_between: float
    sd_within: float | None
    ratio: float | None
    within: str
    cannot_rank: bool


def discrimination(values: Sequence[ArrayLike]) -> DiscriminationResult:
    """The ratio of the spread between methods to the noise of one method.

    Args:
        values: one array per model, (seeds, cases) or (folds, cases). NaN marks a case that a fold does not
            hold: rows that share no case are folds, anything else is seeds. One row says nothing about the
            noise. Folds are used only when no model has seeds.

    Raises:
        StatsError: fewer than 2 models, inf, a row without a value, an array that is not 2-D.

    **Source:** the idea is nnU-Net Revisited, arXiv 2404.09556, section on benchmark suitability.
    """
    models = [_checked(model, position) for position, model in enumerate(values)]
    if len(models) < 2:
        raise StatsError(f"discrimination needs at least 2 models, found {len(models)}")
    kinds = [_row_kind(model) for model in models]
    within = "seeds" if "seeds" in kinds else "folds" if "folds" in kinds else ""
    floor = noise_floor(*(model[~np.isnan(model)] for model in models))
    means = [float(np.nanmean(model[:, ~np.isnan(model).all(axis=0)], axis=0).mean()) for model in models]
    sd_between = float(np.std(means, ddof=1))
    if sd_between <= floor:
        sd_between = 0.0
    if not within:
        return DiscriminationResult(sd_between, None, None, "", False)
    variances = [
        np.nanmean(m, axis=1).var(ddof=1) for m, kind in zip(models, kinds, strict=True) if kind == within
    ]
    sd_within = float(np.sqrt(np.mean(variances)))
    if sd_within <= floor:
        sd_within = 0.0
    without_noise = float("inf") if sd_between else 0.0  # all methods equal: nothing to rank
    ratio = sd_between / sd_within if sd_within else without_noise
    return DiscriminationResult(sd_between, sd_within, ratio, within, ratio < 1)


def _checked(model: ArrayLike, position: int) -> FloatArray:
    """One model's array, 2-D, no inf, a value in each row."""
    array = real_numbers(model, f"values[{position}]")
    if array.ndim != 2 or array.size == 0:
        raise StatsError(f"values[{position}]: expected (seeds or folds, cases), found shape {array.shape}")
    if np.isinf(array).any():
        raise StatsError(
            f"values[{position}]: inf at {tuple(int(i) for i in np.argwhere(np.isinf(array))[0])}"
        )
    empty = np.flatnonzero(np.isnan(array).all(axis=1))
    if empty.size:
        raise StatsError(f"values[{position}]: row {int(empty[0])} holds no value")
    return array


def _row_kind(model: FloatArray) -> str:
    """What the rows are: `seeds`, `folds` (no case in two rows) or "" (one row)."""
    if model.shape[0] < 2:
        return ""
    return "folds" if int((~np.isnan(model)).sum(axis=0).max()) == 1 else "seeds"
