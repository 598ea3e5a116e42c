"""Do these models differ at all, and how much of their order is more than chance?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, noise_floor
from segbench.stats.family import interaction_variance, seed_variance
from segbench.stats.laws import f_quantile, f_tail
from segbench.stats.scores import checked_scores

LEVEL = 0.05  # of the limit of the reliability


@dataclass(frozen=True, slots=True)
class Omnibus:
    """One test of all models together.

    Attributes:
        p: that all models have the same mean; nan for a single patient.
        statistic, df_between, df_within: of the F-test; df are nan where nothing varies.
        reliability: share of the variance of the models' means that lies between the models and is not due to
            seeds and patients, in [0, 1]: near 0 the order is chance, near 1 it would come again.
        reliability_low: lower one-sided 95 % limit of the reliability; 0 where p >= 0.05.
        claim: `method`, or `weights` where a model has one seed and seeds count for nothing.
        models, n: how many models and patients (cases where no patients were given).
    """

    p: float
    statistic: float
    df_between: float
    df_within: float
    reliability: float
    reliability_low: float
    claim: str
    models: int
    n: int


def models_differ(scores: Mapping[str, ArrayLike], *, patients: ArrayLike | None = None) -> Omnibus:
    """Whether the data show that the models differ, with seeds and patients as random.

    The spread of the models' means is compared with what seeds and patients alone would give. Both degrees of
    freedom are matched to their first two moments, since models vary unequally on retraining and on cases.

    Args:
        scores: per model (seeds, cases), the same cases in the same order.
        patients: (cases,) labels; the images of a patient are averaged first.

    Raises:
        StatsError: fewer than 2 models, unequal cases, NaN or inf.

    **Source:** Box 1954; Brunner, Dette and Munk 1997 (moment matching); size in `tests/stats`.
    """
    return omnibus(list(checked_scores(scores, patients=patients).values()))


def omnibus(values: list[FloatArray]) -> Omnibus:
    """`models_differ` of checked scores, (seeds, patients) a model."""
    k, n = len(values), values[0].shape[1]
    method = min(model.shape[0] for model in values) >= 2
    claim = "method" if method else "weights"
    if n < 2:
        nan = float("nan")
        return Omnibus(nan, nan, nan, nan, nan, nan, claim, k, n)
    averages = np.stack([model.mean(axis=0) for model in values])
    spread = float(averages.mean(axis=1).var(ddof=1))
    expected, df_between, df_within = _chance(values, averages, method=method)
    floor = noise_floor(*values) ** 2
    if expected <= floor:
        differ = spread > floor
        statistic, sure, nan = float("inf") if differ else 0.0, float(differ), float("nan")
        return Omnibus(1 - sure, statistic, nan, nan, sure, sure, claim, k, n)
    statistic = spread / expected
    p = f_tail(df_between, df_within, statistic)
    limit = f_quantile(df_between, df_within, 1 - LEVEL)
    share, low = (max(0.0, 1 - chance / statistic) if statistic else 0.0 for chance in (1.0, limit))
    return Omnibus(p, statistic, df_between, df_within, share, low, claim, k, n)


def _chance(values: list[FloatArray], averages: FloatArray, *, method: bool) -> tuple[float, float, float]:
    """Variance of the means that seeds and patients alone give, and the degrees of freedom of the F-test."""
    k, n = averages.shape
    centred = averages - averages.mean(axis=0)  # what all models share on a case is not a difference
    cases = np.cov(centred) / n
    case = float(np.trace(cases)) / (k - 1)
    seeds = np.zeros(k)
    shared, fewer = 0.0, np.ones(k)
    if method:
        numbers = np.array([model.shape[0] for model in values])
        seeds = np.array([float(seed_variance(model)) for model in values]) / numbers
        shared = sum(float(interaction_variance(model)) for model in values) / k
        fewer = numbers - 1.0
    seed = float(seeds.mean())
    expected = max(seed + case - shared, seed, case)
    if expected <= noise_floor(*values) ** 2:
        return 0.0, float("nan"), float("nan")
    within = 1 / (
        float((((seeds / k) / expected) ** 2 / fewer).sum())
        + (case / expected) ** 2 * _share(cases) / (n - 1)
    )
    centre = np.eye(k) - 1 / k
    return expected, 1 / _share(centre @ np.diag(seeds) @ centre + cases), within


def _share(matrix: FloatArray) -> float:
    """1 / degrees of freedom of a quadratic form with this covariance: tr(M M) / tr(M)^2."""
    whole = float(np.trace(matrix))
    return float((matrix**2).sum()) / whole**2 if whole else 0.0
