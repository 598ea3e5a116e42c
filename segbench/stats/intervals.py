"""Confidence interval of a mean over cases."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, choice, finite_array, noise_floor, open_unit, positive_count
from segbench.stats.errors import NotEnoughSeeds
from segbench.stats.laws import normal_cdf, normal_quantile, student_quantile
from segbench.stats.resampling import bootstrap_means, group_index
from segbench.stats.scores import Bounds, by_patient, checked_bounds

BCA_FROM = 20  # cases; below, Student t covers better (measured, section 2.3 of the statistics document)
FEW_CASES = 30
CONSTANT = "constant"
TOO_SHORT = "few cases with total failures: interval too short"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate, low, high: in the unit of the values; nan where one case allows no interval.
        confidence: the nominal level, such as 0.95.
        method: how the bounds were made.
        n: cases used.
        note: what a reader has to know about the bounds, "" when nothing.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    method: str
    n: int
    note: str


def mean_interval(
    x: ArrayLike,
    *,
    method: str = "auto",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    worst: float | None = None,
    patients: ArrayLike | None = None,
    bounds: Bounds | None = None,
) -> Interval:
    """The mean over cases with a confidence interval.

    Args:
        x: (cases,), or (seeds, cases) of one model.
        method: `auto` is the two-level interval for two seeds or more, else BCa for 20 cases or more, else
            Student t. `t`, `bca`, `percentile` on seeds x cases use the per-case mean over seeds. `two_level`
            needs two seeds.
        confidence: nominal level.
        resamples: bootstrap draws of `bca` and `percentile`.
        seed: of the bootstrap.
        worst: the metric's worst value, if it has one: a small sample that touches it gets a note, since
            every method's interval is then too short (measured coverage .74 to .79, n = 10, 10 % zeros).
        patients: (cases,) labels; the images of a patient are averaged first, and `n` counts patients.
        bounds: lowest and highest value of the metric; the interval never leaves them.

    Raises:
        StatsError: NaN or inf, wrong shape, unknown method, a value out of bounds. NotEnoughSeeds:
            `two_level` on one seed.

    **Source:** Efron 1987 (BCa); section 2.7 of the statistics document (two-level).
    """
    choice(method, ("auto", "t", "bca", "percentile", "two_level"), "method")
    open_unit(confidence, "confidence")
    positive_count(resamples, "resamples")
    values = finite_array(x, "x", ndim=(1, 2))
    lowest, highest = checked_bounds(bounds, [values])
    values = by_patient(values, group_index(patients, values.shape[-1]))
    seeds = values.shape[0] if values.ndim == 2 else 1
    if method == "two_level" and seeds < 2:
        raise NotEnoughSeeds(f"two_level needs at least 2 seeds, found {seeds}")
    cases = values.mean(axis=0) if values.ndim == 2 else values
    n, mean = cases.size, float(cases.mean())
    if seeds >= 2 and n >= 2 and method in ("auto", "two_level"):
        low, high = _two_level_bounds(values, confidence)
        low, high = max(low, lowest), min(high, highest)
        return Interval(mean, low, high, confidence, "two_level", n, _note(cases, worst))
    chosen = ("bca" if n >= BCA_FROM else "t") if method in ("auto", "two_level") else method
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), confidence, chosen, n, "one case: no interval")
    if float(np.ptp(cases)) <= noise_floor(cases):
        return Interval(mean, mean, mean, confidence, chosen, n, CONSTANT)
    if chosen == "t":
        low, high = _t_bounds(cases, confidence)
    else:
        draws = bootstrap_means(cases[:, None], resamples=resamples, seed=seed)[:, 0]
        low, high = _bootstrap_bounds(cases, draws, chosen, confidence)
    low, high = max(low, lowest), min(high, highest)
    return Interval(mean, low, high, confidence, chosen, n, _note(cases, worst))


def _note(cases: FloatArray, worst: float | None) -> str:
    """The warning for small samples that hold a total failure."""
    touches = worst is not None and bool((np.abs(cases - worst) <= 1e-12).any())
    return TOO_SHORT if cases.size < FEW_CASES and touches else ""


def _t_bounds(cases: FloatArray, confidence: float) -> tuple[float, float]:
    """Student's interval of the mean."""
    mean, error = float(cases.mean()), float(cases.std(ddof=1) / np.sqrt(cases.size))
    half = student_quantile(cases.size - 1, (1 + confidence) / 2) * error
    return mean - half, mean + half


def _bootstrap_bounds(
    cases: FloatArray, draws: FloatArray, method: str, confidence: float
) -> tuple[float, float]:
    """Percentile or BCa bounds from bootstrapped means."""
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca":
        tails = bca_levels(cases, draws, tails)
    low, high = np.quantile(draws, tails)
    return float(low), float(high)


def bca_levels(cases: FloatArray, draws: FloatArray, tails: FloatArray) -> FloatArray:
    """`tails` moved by BCa's bias and acceleration: the levels at which to read the bootstrap law."""
    mean, slack = cases.mean(), noise_floor(cases)
    below = float((draws < mean - slack).mean() + 0.5 * (np.abs(draws - mean) <= slack).mean())
    edge = 0.5 / draws.size  # a share of 0 or 1 would send z0 to infinity
    z0 = normal_quantile(min(max(below, edge), 1 - edge))
    u = cases - mean
    u = u / np.max(np.abs(u))  # the ratio has no scale; cubes of tiny numbers vanish
    acceleration = float((u**3).sum() / (6 * (u**2).sum() ** 1.5))
    z = z0 + normal_quantile(tails)
    return normal_cdf(z0 + z / (1 - acceleration * z))


def _two_level_bounds(values: FloatArray, confidence: float) -> tuple[float, float]:
    """Bounds of one model's mean with seeds and cases as random, section 2.7 applied to one model."""
    from segbench.stats.two_level import one_model_variance

    mean = float(values.mean())
    variance, df = one_model_variance(values)
    half = 0.0 if variance == 0 else student_quantile(df, (1 + confidence) / 2) * float(np.sqrt(variance))
    return mean - half, mean + half
