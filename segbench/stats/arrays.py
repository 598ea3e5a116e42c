"""Checked input and read-only output: the one door through which numbers enter the statistics."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segbench.stats.errors import StatsError

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

# Differences of numbers around s carry rounding noise of a few ulp of s; a spread below this share of s is
# arithmetic, not variation.
NOISE = 1e-13
LARGEST, SMALLEST = 1e100, 1e-100  # squares and cubes of numbers beyond leave the range of a double


def finite_array(values: ArrayLike, name: str, *, ndim: int | tuple[int, ...]) -> FloatArray:
    """`values` as a float64 array of the wanted number of axes, none empty, every entry finite.

    Numbers below 1e-100 are zero: no score is that small, and their squares would vanish silently.

    Raises:
        StatsError: not numbers, wrong number of axes, an empty axis, or NaN/inf (their positions are named).
    """
    wanted = (ndim,) if isinstance(ndim, int) else ndim
    array = real_numbers(values, name)
    if array.ndim not in wanted:
        axes = " or ".join(str(n) for n in wanted)
        raise StatsError(f"{name}: expected {axes} axes, found shape {array.shape}")
    if array.size == 0:
        raise StatsError(f"{name}: empty, shape {array.shape}")
    refuse_non_finite(array, name)
    size = np.abs(array)
    if float(size.max()) > LARGEST:
        raise StatsError(f"{name}: a value beyond {LARGEST:g} is not a score")
    return np.where(size < SMALLEST, 0.0, array) if bool(((size < SMALLEST) & (size > 0)).any()) else array


def real_numbers(values: ArrayLike, name: str) -> FloatArray:
    """`values` as a float64 array of any shape.

    Raises:
        StatsError: texts, complex numbers, rows of unequal length.
    """
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StatsError(
            f"{name}: expected numbers in a regular array, found something else ({error})"
        ) from error


def refuse_non_finite(array: FloatArray, name: str) -> None:
    """Raise a StatsError that names the first positions of NaN or inf, if there are any."""
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if not count:
        return
    positions = [
        str(int(where[0])) if len(where) == 1 else "(" + ", ".join(str(int(i)) for i in where) + ")"
        for where in np.argwhere(bad)[:8]
    ]
    more = ", ..." if count > len(positions) else ""
    raise StatsError(f"{name}: NaN or inf at {', '.join(positions)}{more} ({count} of {array.size} values)")


def paired_differences(x: ArrayLike, y: ArrayLike | None) -> FloatArray:
    """X - y per case, or x itself when y is None (then x already holds the differences).

    Differences that are rounding noise are zeros, and sizes that differ by no more than it are equal: means
    of the same seeds in another order differ in their last bit, and no zero or tie may hang on that.
    """
    first = finite_array(x, "x", ndim=1)
    if y is None:
        return without_noise(first, noise_floor(first))
    second = finite_array(y, "y", ndim=1)
    if first.shape != second.shape:
        raise StatsError(f"x and y are pairs: expected equal lengths, found {first.size} and {second.size}")
    return without_noise(first - second, noise_floor(first, second))


def without_noise(differences: FloatArray, floor: float | FloatArray) -> FloatArray:
    """`differences` with zeros where their size is at most `floor`, and one size for sizes that close.

    Args:
        differences: (..., pairs).
        floor: One for all, or (..., 1).
    """
    sizes = np.abs(differences)
    order = np.argsort(sizes, axis=-1, kind="stable")
    ordered = np.concatenate(
        [np.zeros((*sizes.shape[:-1], 1)), np.take_along_axis(sizes, order, axis=-1)], axis=-1
    )
    starts: NDArray[np.bool_] = np.diff(ordered, axis=-1, prepend=-np.inf) > floor
    places = np.arange(ordered.shape[-1], dtype=np.intp)
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=-1)
    equal = np.empty_like(sizes)
    np.put_along_axis(equal, order, np.take_along_axis(ordered, first, axis=-1)[..., 1:], axis=-1)
    return np.copysign(equal, differences)


def noise_floor(*arrays: FloatArray) -> float:
    """Absolute size below which a spread of these numbers is rounding noise."""
    return NOISE * max(float(np.max(np.abs(a))) for a in arrays)


def read_only_float(values: ArrayLike) -> FloatArray:
    """A read-only float64 copy."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def read_only_int(values: ArrayLike) -> IntArray:
    """A read-only int64 copy."""
    array = np.array(values, dtype=np.int64)
    array.setflags(write=False)
    return array


def generator(seed: int) -> np.random.Generator:
    """The only source of randomness of this package."""
    return np.random.Generator(np.random.PCG64(seed))


def choice(value: str, allowed: Sequence[str], name: str) -> str:
    """`value` when it is one of `allowed`; else a StatsError that lists them."""
    if value not in allowed:
        raise StatsError(f"{name}: expected one of {', '.join(allowed)}, found {value!r}")
    return value


def open_unit(value: float, name: str) -> float:
    """`value` strictly between 0 and 1 (levels and confidences)."""
    if not 0.0 < value < 1.0:
        raise StatsError(f"{name}: expected a number between 0 and 1, found {value!r}")
    return float(value)


def positive_count(value: int, name: str) -> int:
    """`value` as an int of at least 1."""
    if value < 1:
        raise StatsError(f"{name}: expected at least 1, found {value!r}")
    return int(value)
