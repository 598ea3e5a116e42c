# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""Probability laws and ranks under the names the statistics use, with types.

From scipy.special, which is loaded at the first use; scipy.stats takes a second to import.
"""

from typing import TypeAlias, overload

import numpy as np
import scipy
from numpy.typing import NDArray

from segbench.stats.arrays import FloatArray, IntArray

BoolArray: TypeAlias = NDArray[np.bool_]


@overload
def normal_cdf(z: float) -> float: ...
@overload
def normal_cdf(z: FloatArray) -> FloatArray: ...
def normal_cdf(z: float | FloatArray) -> float | FloatArray:
    """P(Z <= z) of the standard normal law."""
    return _plain(scipy.special.ndtr(z))


@overload
def normal_quantile(level: float) -> float: ...
@overload
def normal_quantile(level: FloatArray) -> FloatArray: ...
def normal_quantile(level: float | FloatArray) -> float | FloatArray:
    """The z with P(Z <= z) = level."""
    return _plain(scipy.special.ndtri(level))


def student_cdf(df: float, t: float) -> float:
    """P(T <= t) of Student's law; df need not be whole."""
    return float(scipy.special.stdtr(df, t))


def student_tail(df: FloatArray, t: FloatArray) -> FloatArray:
    """P(T >= t) of Student's law, element by element."""
    return np.asarray(scipy.special.stdtr(df, -t), dtype=np.float64)


def student_quantiles(df: FloatArray, level: FloatArray) -> FloatArray:
    """The t with P(T <= t) = level, element by element."""
    return np.asarray(scipy.special.stdtrit(df, level), dtype=np.float64)


def student_quantile(df: float, level: float) -> float:
    """The t with P(T <= t) = level."""
    return float(scipy.special.stdtrit(df, level))


def digamma(x: FloatArray) -> FloatArray:
    """Derivative of the logarithm of the gamma function."""
    return np.asarray(scipy.special.digamma(x), dtype=np.float64)


def polygamma(order: int, x: FloatArray) -> FloatArray:
    """Derivative of `digamma`, of the given order."""
    return np.asarray(scipy.special.polygamma(order, x), dtype=np.float64)


def f_tail(df_above: float, df_below: float, value: float) -> float:
    """P(F >= value); 0 at infinity."""
    return float(scipy.special.fdtrc(df_above, df_below, value)) if np.isfinite(value) else 0.0


def f_quantile(df_above: float, df_below: float, level: float) -> float:
    """The value with P(F <= value) = level."""
    return float(scipy.special.fdtri(df_above, df_below, level))


def ranks(values: FloatArray, *, ties: str, axis: int = 0) -> FloatArray:
    """1-based ranks along `axis`, smallest first; `ties` is `average` or `min`."""
    moved = np.moveaxis(values, axis, -1)
    order = np.argsort(moved, axis=-1, kind="stable")
    ordered: FloatArray = np.take_along_axis(moved, order, axis=-1)
    place: IntArray = np.arange(1, ordered.shape[-1] + 1, dtype=np.int64)
    starts: BoolArray = np.ones(ordered.shape, dtype=bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    ranked: FloatArray = np.maximum.accumulate(np.where(starts, place, 0), axis=-1).astype(np.float64)
    if ties == "average":
        ends: BoolArray = np.ones(ordered.shape, dtype=bool)
        ends[..., :-1] = starts[..., 1:]
        backwards: IntArray = np.where(ends, place, place.size + 1)[..., ::-1]
        ranked = (ranked + np.minimum.accumulate(backwards, axis=-1)[..., ::-1]) / 2
    out: FloatArray = np.empty(ordered.shape)
    np.put_along_axis(out, order, ranked, axis=-1)
    return np.moveaxis(out, -1, axis)


def _plain(value: float | FloatArray) -> float | FloatArray:
    """A float for a scalar, a float64 array otherwise."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value, dtype=np.float64)
