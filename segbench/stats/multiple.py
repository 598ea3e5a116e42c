"""Adjusted p-values for families of tests."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, read_only_float, real_numbers, refuse_non_finite
from segbench.stats.errors import StatsError


def _pvalues(values: ArrayLike, name: str) -> FloatArray:
    """A (m,) array of finite p-values; m = 0 is an empty family."""
    array = real_numbers(values, name)
    if array.ndim != 1:
        raise StatsError(f"{name}: expected 1 axis, found shape {array.shape}")
    refuse_non_finite(array, name)
    _refuse_outside_unit(array, name)
    return array


def _refuse_outside_unit(array: FloatArray, name: str) -> None:
    bad = np.flatnonzero((array < 0) | (array > 1))
    if bad.size:
        raise StatsError(f"{name}: a p-value lies in [0, 1], found {float(array[bad[0]])!r} at {int(bad[0])}")


def holm(pvalues: ArrayLike) -> FloatArray:
    """(m,) Holm's step-down adjusted p-values, in the order of the input.

    Raises:
        StatsError: NaN, inf, or a value outside [0, 1].

    **Source:** Holm 1979; equals R p.adjust(method="holm").
    """
    p = _pvalues(pvalues, "pvalues")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return read_only_float(adjusted)


def _pair_pvalues(matrix: ArrayLike) -> tuple[FloatArray, int]:
    """The p-values above the diagonal of a symmetric (k, k) matrix, and k. The diagonal is not looked at."""
    array = np.array(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] < 2:
        raise StatsError(f"pvalue_matrix: expected (k, k) with k >= 2, found shape {array.shape}")
    np.fill_diagonal(array, 1.0)
    refuse_non_finite(array, "pvalue_matrix")
    if not np.allclose(array, array.T, rtol=1e-9, atol=0):
        raise StatsError("pvalue_matrix: expected a symmetric matrix, one p-value per pair")
    upper = array[np.triu_indices(array.shape[0], 1)]
    _refuse_outside_unit(upper, "pvalue_matrix")
    return upper, array.shape[0]


def _as_matrix(upper: FloatArray, k: int) -> FloatArray:
    """The symmetric (k, k) matrix with `upper` above the diagonal and 1 on it."""
    matrix = np.ones((k, k))
    rows, columns = np.triu_indices(k, 1)
    matrix[rows, columns] = matrix[columns, rows] = np.minimum(upper, 1.0)
    return read_only_float(matrix)


@lru_cache(maxsize=64)
def true_hypothesis_counts(k: int) -> frozenset[int]:
    """How many of the k(k-1)/2 pairwise hypotheses can be true at once.

    **Source:** Shaffer 1986: S(k) is the union over j of C(j, 2) + S(k - j).
    """
    if k <= 1:
        return frozenset({0})
    return frozenset(
        j * (j - 1) // 2 + rest for j in range(1, k + 1) for rest in true_hypothesis_counts(k - j)
    )


def shaffer(pvalue_matrix: ArrayLike) -> FloatArray:
    """(k, k) adjusted p-values by Shaffer's static procedure for all pairs of k models; 1 on the diagonal.

    Args:
        pvalue_matrix: (k, k), symmetric, two-sided raw p-values; the diagonal is not looked at.

    Raises:
        StatsError: not symmetric, NaN or inf, a value outside [0, 1].

    **Source:** Shaffer 1986; Garcia and Herrera 2008, section 2.2.
    """
    p, k = _pair_pvalues(pvalue_matrix)
    possible = sorted(true_hypothesis_counts(k))
    # With i - 1 hypotheses rejected, the largest possible number of true ones among the remaining m - i + 1
    factor = [max(s for s in possible if s <= p.size - i) for i in range(p.size)]
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.array(factor))
    return _as_matrix(adjusted, k)
