"""Practically equal, better, worse, or undecided: the four verdicts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import finite_array, noise_floor, open_unit, paired_differences
from segbench.stats.errors import StatsError
from segbench.stats.laws import student_cdf, student_quantile


@dataclass(frozen=True, slots=True)
class EquivalenceResult:
    """Two one-sided tests against a margin, and the verdict on x against y.

    Attributes:
        difference: mean of x - y.
        low, high: the (1 - 2 alpha) interval; inside the margin exactly when equivalence holds.
        pvalue: of the equivalence test (TOST).
        pvalue_difference: of the two-sided test of no difference.
        margin: the largest difference that still counts as practically nothing.
        verdict: `equivalent`, `better`, `worse` or `undecided`; direction of the metric applied.
        significant: the difference is significant, whatever its size.
        n: cases.
    """

    difference: float
    low: float
    high: float
    pvalue: float
    pvalue_difference: float
    margin: float
    verdict: str
    significant: bool
    n: int


def equivalence_test(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    margin: float,
    alpha: float = 0.05,
    higher_is_better: bool = True,
) -> EquivalenceResult:
    """The verdict on x against y by paired t: equivalent within the margin, better, worse, or undecided.

    Args:
        x: (n,) values, or the differences when `y` is None; n >= 2.
        y: (n,) values of the other model, same case order.
        margin: > 0, in the unit of the values.
        alpha: level of each test.
        higher_is_better: turns the sign of the verdict; never a p-value.

    Raises:
        StatsError: one pair, NaN or inf, unequal lengths, margin not positive.

    **Source:** Schuirmann 1987; equals statsmodels ttost_paired.
    """
    differences = paired_differences(x, y)
    if differences.size < 2:
        raise StatsError("equivalence needs at least 2 pairs, found 1")
    scale = [differences] if y is None else [finite_array(x, "x", ndim=1), finite_array(y, "y", ndim=1)]
    floor = noise_floor(*scale)
    difference, sd = float(differences.mean()), float(differences.std(ddof=1))
    return verdict_from_estimate(
        0.0 if abs(difference) <= floor else difference,
        0.0 if sd <= floor else sd / float(np.sqrt(differences.size)),
        differences.size - 1,
        n=differences.size,
        margin=margin,
        alpha=alpha,
        higher_is_better=higher_is_better,
    )


def verdict_from_estimate(
    difference: float,
    standard_error: float,
    df: float,
    *,
    n: int,
    margin: float,
    alpha: float = 0.05,
    higher_is_better: bool = True,
) -> EquivalenceResult:
    """The four verdicts from an estimate, its standard error and degrees of freedom (paired t or two-level).

    Args:
        difference: estimate of x - y.
        standard_error: >= 0; at 0 the difference is taken as known exactly.
        df: degrees of freedom of Student's law.
        n: cases, for the record.
        margin: > 0, in the unit of the difference.
        alpha: level of each test.
        higher_is_better: turns the sign of the verdict.

    Raises:
        StatsError: margin not positive, or an input that is not finite.
    """
    open_unit(alpha, "alpha")
    if not (np.isfinite(margin) and margin > 0):
        raise StatsError(f"margin: expected a positive number, found {margin!r}")
    if not (np.isfinite(difference) and np.isfinite(standard_error)) or standard_error < 0:
        raise StatsError(
            f"expected a finite estimate, found {difference!r} with standard error {standard_error!r}"
        )
    if standard_error == 0:
        pvalue, pvalue_difference, half = float(abs(difference) >= margin), float(difference == 0), 0.0
    else:
        pvalue = student_cdf(df, (abs(difference) - margin) / standard_error)
        pvalue_difference = 2 * student_cdf(df, -abs(difference) / standard_error)
        half = student_quantile(df, 1 - alpha) * standard_error
    significant = pvalue_difference < alpha
    if pvalue < alpha:
        verdict = "equivalent"
    elif significant:
        verdict = "better" if (difference > 0) == higher_is_better else "worse"
    else:
        verdict = "undecided"
    return EquivalenceResult(
        difference=difference,
        low=difference - half,
        high=difference + half,
        pvalue=pvalue,
        pvalue_difference=pvalue_difference,
        margin=float(margin),
        verdict=verdict,
        significant=significant,
        n=n,
    )
