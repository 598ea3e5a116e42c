"""The test that stays honest when you retrain: training seeds and cases both count as random.

A paired test on one run per model asks whether *these weights* differ on such cases. A paper claims something
about the *methods*, and a retrained model scores differently on every case at once. Averaging seeds per case
does not cure that: the error bar must hold the spread of the seeds' means as a term of its own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, finite_array, noise_floor, open_unit
from segbench.stats.errors import NotEnoughSeeds, StatsError
from segbench.stats.laws import student_cdf, student_quantile


@dataclass(frozen=True, slots=True)
class TwoLevelResult:
    """Difference of two models with seeds and cases as random.

    Attributes:
        difference: mean of a minus mean of b, over seeds and cases.
        standard_error, statistic, df, pvalue: Student's test; two-sided.
        low, high: confidence interval of the difference.
        variance_seed, variance_case, variance_interaction: the parts of the squared standard error.
        seeds_a, seeds_b, cases: what was at hand.
        detectable_difference: smallest true difference found in 80 % of repeats with this much data.
        degenerate: no variance at all; p is 1 for equal means and 0 otherwise, df is nan.
    """

    difference: float
    standard_error: float
    statistic: float
    df: float
    pvalue: float
    low: float
    high: float
    variance_seed: float
    variance_case: float
    variance_interaction: float
    seeds_a: int
    seeds_b: int
    cases: int
    detectable_difference: float
    degenerate: bool


def two_level_test(
    a: ArrayLike, b: ArrayLike, *, alpha: float = 0.05, confidence: float = 0.95
) -> TwoLevelResult:
    """The difference of two models over training seeds and cases, with an honest error bar.

    Seeds are unpaired (seed 0 of one model has nothing to do with seed 0 of another), cases are paired.

    Args:
        a: (seeds of A, cases), at least 2 seeds; for cross-validation the folds' test cases side by side.
        b: (seeds of B, cases), at least 2 seeds, same case order.
        alpha: level behind `detectable_difference`.
        confidence: level of the interval.

    Raises:
        NotEnoughSeeds: fewer than 2 seeds on a side.
        StatsError: fewer than 2 cases, different numbers of cases, NaN or inf.

    **Source:** section 2.7 of the statistics document; Welch-Satterthwaite degrees of freedom.
    """
    open_unit(alpha, "alpha")
    open_unit(confidence, "confidence")
    first, second = finite_array(a, "a", ndim=2), finite_array(b, "b", ndim=2)
    if first.shape[1] != second.shape[1]:
        raise StatsError(f"a and b share their cases: found {first.shape[1]} and {second.shape[1]} cases")
    if min(first.shape[0], second.shape[0]) < 2:
        raise NotEnoughSeeds(
            f"the two-level test needs at least 2 seeds a side, found {first.shape[0]} and {second.shape[0]}"
        )
    cases = first.shape[1]
    if cases < 2:
        raise StatsError(f"the two-level test needs at least 2 cases, found {cases}")

    per_case = first.mean(axis=0) - second.mean(axis=0)
    difference = float(per_case.mean())
    seed_a, seed_b = _seed_variance(first), _seed_variance(second)
    variance_seed = seed_a + seed_b
    variance_case = float(per_case.var(ddof=1)) / cases
    interaction = _interaction_variance(first) + _interaction_variance(second)
    floor = noise_floor(first, second)
    variance, df = (
        float(part)
        for part in combined_variance(
            (np.array(seed_a), np.array(first.shape[0] - 1.0)),
            (np.array(seed_b), np.array(second.shape[0] - 1.0)),
            (np.array(variance_case), cases - 1.0),
            np.array(interaction),
            floor,
        )
    )
    degenerate = variance == 0
    if degenerate:
        difference = 0.0 if abs(difference) <= floor else difference
        statistic = float(np.sign(difference)) * np.inf if difference else 0.0
        pvalue, half, detectable = float(difference == 0), 0.0, 0.0
    else:
        statistic = difference / float(np.sqrt(variance))
        pvalue = 2 * student_cdf(df, -abs(statistic))
        half = student_quantile(df, (1 + confidence) / 2) * float(np.sqrt(variance))
        detectable = detectable_difference(variance, df, alpha=alpha)
    return TwoLevelResult(
        difference=difference,
        standard_error=float(np.sqrt(variance)),
        statistic=float(statistic),
        df=float(df),
        pvalue=pvalue,
        low=difference - half,
        high=difference + half,
        variance_seed=variance_seed,
        variance_case=variance_case,
        variance_interaction=interaction,
        seeds_a=first.shape[0],
        seeds_b=second.shape[0],
        cases=cases,
        detectable_difference=detectable,
        degenerate=degenerate,
    )


def combined_variance(
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    case: tuple[FloatArray, float],
    interaction: FloatArray,
    floor: float,
    *,
    cautious: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """Variance of a difference of two models, and its degrees of freedom; (0, nan) up to the noise floor.

    Args:
        first: squared standard error of the one mean from its seeds, and degrees of freedom.
        second: of the other mean.
        case: squared standard error from the cases, and degrees of freedom.
        interaction: what both count, and is taken off once.
        floor: a root of the variance up to here is zero.
        cautious: the seeds have the degrees of freedom of the side with fewer. Satterthwaite's are too
            many where one model varies more than the other and its few seeds happen not to show it.

    **Source:** Satterthwaite 1946.
    """
    seed = first[0] + second[0]
    variance = np.maximum(seed + case[0] - interaction, np.maximum(seed, case[0]))
    nothing = variance <= floor**2
    whole = np.where(nothing, 1.0, variance)
    parts = (first, second, case)
    if cautious:
        parts = ((seed, np.minimum(first[1], second[1])), case)
    # As shares of the whole, so that no square vanishes
    shares = sum(((part / whole) ** 2 / df for part, df in parts), start=np.zeros(variance.shape))
    df = np.where(nothing, np.nan, 1 / np.where(nothing, 1.0, shares))
    return np.where(nothing, 0.0, variance), df


def _seed_variance(model: FloatArray) -> float:
    """Variance of the model's mean due to retraining: spread of the seeds' means over the number of seeds."""
    return float(model.mean(axis=1).var(ddof=1)) / model.shape[0]


def _interaction_variance(model: FloatArray) -> float:
    """Share of the variance that both other terms count: residuals after row and column means."""
    seeds, cases = model.shape
    residual = model - model.mean(axis=1, keepdims=True) - model.mean(axis=0, keepdims=True) + model.mean()
    return float((residual**2).sum()) / ((seeds - 1) * (cases - 1)) / (seeds * cases)


def one_model_variance(values: FloatArray) -> tuple[float, float]:
    """Variance and df of one model's mean over (seeds, cases), both at least 2; (0, nan) if constant."""
    seeds, cases = values.shape
    variance, df = combined_variance(
        (np.array(_seed_variance(values)), np.array(seeds - 1.0)),
        (np.zeros(()), np.ones(())),
        (values.mean(axis=0).var(ddof=1) / cases, cases - 1.0),
        np.array(_interaction_variance(values)),
        noise_floor(values),
    )
    return float(variance), float(df)


def detectable_difference(variance: float, df: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a test with this variance finds with the given power.

    (t_{1-alpha/2,df} + t_{power,df}) sqrt(variance), in the unit of the difference.

    Args:
        variance: squared standard error of the difference, >= 0.
        df: degrees of freedom, > 0.
        alpha: two-sided level.
        power: share of repeats in which it is found.

    Raises:
        StatsError: negative or infinite variance, df not positive.
    """
    open_unit(alpha, "alpha")
    open_unit(power, "power")
    if not (np.isfinite(variance) and variance >= 0):
        raise StatsError(f"variance: expected a number >= 0, found {variance!r}")
    if not df > 0:
        raise StatsError(f"df: expected a number > 0, found {df!r}")
    quantiles = student_quantile(df, 1 - alpha / 2) + student_quantile(df, power)
    return quantiles * float(np.sqrt(variance))
