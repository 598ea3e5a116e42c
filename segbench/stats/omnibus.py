"""k models on the same cases: Friedman, Iman-Davenport, Nemenyi and the critical difference."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, finite_array, open_unit, read_only_float
from segbench.stats.errors import StatsError
from segbench.stats.laws import (
    chi_square_tail,
    f_tail,
    normal_cdf,
    ranks,
    studentized_range_quantile,
    studentized_range_tail,
)


@dataclass(frozen=True, slots=True, eq=False)
class FriedmanResult:
    """Friedman's test; `statistic`, `pvalue` are tie-corrected, Iman-Davenport uses the uncorrected one."""

    statistic: float
    pvalue: float
    statistic_uncorrected: float
    iman_davenport: float
    iman_davenport_pvalue: float
    mean_ranks: FloatArray  # (models,), 1 is best
    n: int
    k: int


@dataclass(frozen=True, slots=True, eq=False)
class NemenyiResult:
    """All pairs by mean rank; `cliques` are maximal runs, in rank order, that the test cannot tell apart."""

    mean_ranks: FloatArray  # (models,), 1 is best
    critical_difference: float
    pvalues: FloatArray  # (models, models), studentized range
    z_pvalues: FloatArray  # (models, models), two-sided normal, unadjusted
    cliques: tuple[tuple[int, ...], ...]
    n: int
    k: int
    alpha: float


def comparison_table(table: ArrayLike) -> FloatArray:
    """`table` as (cases, models) with at least two of each.

    Raises:
        StatsError: one case or one model, NaN or inf, wrong shape.
    """
    values = finite_array(table, "table", ndim=2)
    if values.shape[0] < 2 or values.shape[1] < 2:
        raise StatsError(f"table: expected at least 2 cases and 2 models, found shape {values.shape}")
    return values


def case_ranks(table: FloatArray, higher_is_better: bool) -> FloatArray:
    """(cases, models) average ranks within each case, 1 is best."""
    return ranks(-table if higher_is_better else table, ties="average", axis=1)


def friedman(table: ArrayLike, *, higher_is_better: bool = True) -> FriedmanResult:
    """Friedman's test that k models are alike on n cases, with the Iman-Davenport F beside it.

    Args:
        table: (cases, models).
        higher_is_better: decides the direction of the mean ranks; never a p-value.

    Raises:
        StatsError: fewer than 2 cases or models, NaN or inf.

    **Source:** R stats::friedman.test (tie correction); Iman and Davenport 1980; Demsar 2006, section 3.2.2.
    """
    by_case = case_ranks(comparison_table(table), higher_is_better)
    n, k = by_case.shape
    mean_ranks = by_case.mean(axis=0)
    spread = float(((mean_ranks - (k + 1) / 2) ** 2).sum())
    uncorrected = 12 * n / (k * (k + 1)) * spread
    # sum over cases of (rank - mean)^2 is (k^3 - k)/12 without ties and shrinks with them
    available = float(((by_case - (k + 1) / 2) ** 2).sum())
    statistic = 0.0 if available == 0 else n * n * (k - 1) * spread / available
    remainder = n * (k - 1) - uncorrected
    f_value = (n - 1) * uncorrected / remainder if remainder > 1e-9 * n * k else float("inf")
    return FriedmanResult(
        statistic=statistic,
        pvalue=chi_square_tail(k - 1, statistic),
        statistic_uncorrected=uncorrected,
        iman_davenport=f_value,
        iman_davenport_pvalue=f_tail(k - 1, (k - 1) * (n - 1), f_value),
        mean_ranks=read_only_float(mean_ranks),
        n=n,
        k=k,
    )


def critical_difference(k: int, n: int, *, alpha: float = 0.05) -> float:
    """The smallest difference of mean ranks that Nemenyi's test calls different, k models on n cases.

    Raises:
        StatsError: k < 2 or n < 1.

    **Source:** Demsar 2006, section 3.2.2 (his q is the studentized range over sqrt 2).
    """
    if k < 2 or n < 1:
        raise StatsError(f"critical difference: expected k >= 2 models and n >= 1 cases, found k={k}, n={n}")
    open_unit(alpha, "alpha")
    return studentized_range_quantile(int(k), 1 - float(alpha)) * float(np.sqrt(k * (k + 1) / (12 * n)))


def nemenyi(table: ArrayLike, *, alpha: float = 0.05, higher_is_better: bool = True) -> NemenyiResult:
    """Nemenyi's comparison of all pairs of k models by their mean ranks over n cases.

    Args:
        table: (cases, models).
        alpha: level of the critical difference and the cliques.
        higher_is_better: decides the direction of the mean ranks; never a p-value.

    Raises:
        StatsError: fewer than 2 cases or models, NaN or inf.

    **Source:** Demsar 2006, section 3.2.2; the z form is Garcia and Herrera 2008, section 2.1.
    """
    by_case = case_ranks(comparison_table(table), higher_is_better)
    n, k = by_case.shape
    mean_ranks = by_case.mean(axis=0)
    apart = np.abs(mean_ranks[:, None] - mean_ranks[None, :])
    difference = critical_difference(k, n, alpha=alpha)
    pairs = np.triu_indices(k, 1)
    pvalues = np.ones((k, k))
    pvalues[pairs] = studentized_range_tail(k, apart[pairs] / np.sqrt(k * (k + 1) / (12 * n)))
    pvalues.T[pairs] = pvalues[pairs]
    standard_error = float(np.sqrt(k * (k + 1) / (6 * n)))
    z_pvalues = 2 * normal_cdf(np.asarray(-apart / standard_error, dtype=np.float64))
    return NemenyiResult(
        mean_ranks=read_only_float(mean_ranks),
        critical_difference=difference,
        pvalues=read_only_float(pvalues),
        z_pvalues=read_only_float(z_pvalues),
        cliques=rank_cliques(mean_ranks, difference),
        n=n,
        k=k,
        alpha=alpha,
    )


def rank_cliques(mean_ranks: FloatArray, difference: float) -> tuple[tuple[int, ...], ...]:
    """Maximal runs of two models or more, in rank order, whose mean ranks span less than `difference`."""
    order = [int(i) for i in np.argsort(mean_ranks, kind="stable")]
    runs: list[tuple[int, ...]] = []
    reached = 0
    for start in range(len(order)):
        stop = start + 1
        while stop < len(order) and mean_ranks[order[stop]] - mean_ranks[order[start]] < difference:
            stop += 1
        if stop - start >= 2 and stop > reached:  # a run that ends no later lies inside an earlier one
            runs.append(tuple(order[start:stop]))
            reached = stop
    return tuple(runs)
