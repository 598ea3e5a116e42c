# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""Probability laws and ranks from scipy under the names the statistics use, with types.

The quantiles come from scipy.special (compiled, light to import); scipy.stats is imported only for the
studentized range.
"""

from functools import lru_cache
from typing import overload

import numpy as np
from scipy import special

from segbench.stats.arrays import FloatArray


@overload
def normal_cdf(z: float) -> float: ...
@overload
def normal_cdf(z: FloatArray) -> FloatArray: ...
def normal_cdf(z: float | FloatArray) -> float | FloatArray:
    """P(Z <= z) of the standard normal law."""
    return _plain(special.ndtr(z))


@overload
def normal_quantile(level: float) -> float: ...
@overload
def normal_quantile(level: FloatArray) -> FloatArray: ...
def normal_quantile(level: float | FloatArray) -> float | FloatArray:
    """The z with P(Z <= z) = level."""
    return _plain(special.ndtri(level))


def student_cdf(df: float, t: float) -> float:
    """P(T <= t) of Student's law; df need not be whole."""
    return float(special.stdtr(df, t))


def student_quantile(df: float, level: float) -> float:
    """The t with P(T <= t) = level."""
    return float(special.stdtrit(df, level))


def chi_square_tail(df: float, value: float) -> float:
    """P(X >= value) of the chi-square law."""
    return float(special.chdtrc(df, value))


def f_tail(df_above: float, df_below: float, value: float) -> float:
    """P(F >= value); 0 at infinity."""
    return float(special.fdtrc(df_above, df_below, value)) if np.isfinite(value) else 0.0


def fair_binomial_cdf(n: int) -> FloatArray:
    """(n + 1,) P(Bin(n, 1/2) <= l) for l = 0 ... n."""
    return np.asarray(special.bdtr(np.arange(n + 1.0), n, 0.5), dtype=np.float64)


@lru_cache(maxsize=256)
def studentized_range_quantile(k: int, level: float) -> float:
    """Quantile of the range of k standard normals; cached, since the integral takes a while."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, k, np.inf))


def studentized_range_tail(k: int, values: FloatArray) -> FloatArray:
    """P(range of k standard normals >= value), in [0, 1]."""
    from scipy.stats import studentized_range

    return np.clip(np.asarray(studentized_range.sf(values, k, np.inf), dtype=np.float64), 0.0, 1.0)


def ranks(values: FloatArray, *, ties: str, axis: int = 0) -> FloatArray:
    """1-based ranks along `axis`, smallest first; `ties` is `average` or `min`."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, method=ties, axis=axis), dtype=np.float64)


def _plain(value: float | FloatArray) -> float | FloatArray:
    """A float for a scalar, a float64 array otherwise."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value, dtype=np.float64)
