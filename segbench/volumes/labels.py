"""What makes an array a label map: whole numbers from 0 to 65535, and only the declared ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError

LabelArray: TypeAlias = NDArray[np.unsignedinteger[Any]]
"""Labels z, y, x: uint8, or uint16 when a value exceeds 255."""

LARGEST_LABEL = 65535
TOLERANCE = 1e-6
"""A value this close to a whole number is that label (float label maps)."""

LARGEST_FINE_SLOPE = 0.5
"""A scaling finer than this need not hit whole numbers: a value within half a step of one is meant."""

_ROUNDING = 0.01
"""Share of a step that may be lost when slope and values are rounded, beside half a step."""

_BLOCK = 1 << 20


def as_label_array(
    stored: NDArray[Any], *, slope: float = 0.0, inter: float = 0.0, path: Path | str | None = None
) -> LabelArray:
    """Stored values as labels, uint8 or (a value > 255) uint16.

    A scaling turns stored whole numbers into steps of its slope. Where the steps are fine (below 0.5), a
    value counts as the label that it is at most half a step away from: writers that scale floats to integers
    round so. Everything else has to be within 1e-6 of a whole number. Values that differ in the file and are
    all the same label are a map that lost its labels to its scale, not a label map.

    Args:
        stored: any integer or float array.
        slope: scaling of the file; 0 means none.
        inter: offset of the scaling.
        path: for the message.

    Raises:
        SegbenchError: SB211 NaN or infinity; SB212 a value that is not a whole number in 0..65535, or labels
            that a scaling has made equal.
    """
    if slope != 0.0 and (slope != 1.0 or inter != 0.0):
        return _from_scaled(stored, slope, inter, path)
    if stored.dtype.kind == "f":
        return _from_float(stored, path)
    if stored.dtype == np.uint8:
        return stored  # every value of the type is a label
    low, high = int(stored.min()), int(stored.max())
    if low < 0 or high > LARGEST_LABEL:
        raise _no_label(low if low < 0 else high, path)
    return stored.astype(np.uint8 if high <= 255 else np.uint16, copy=False)


def count_labels(array: LabelArray) -> dict[int, int]:
    """Voxels of each value that occurs, in ascending order of the value."""
    flat = array.reshape(-1)
    counts = np.zeros(256 if array.dtype == np.uint8 else LARGEST_LABEL + 1, dtype=np.int64)
    for at in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[at : at + _BLOCK], minlength=counts.size)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def check_declared(array: LabelArray, labels: Iterable[int], *, path: Path | str | None = None) -> None:
    """Refuse a value that is neither 0 nor declared (SB213), naming each with its voxels."""
    declared = {0, *(int(value) for value in labels)}
    highest = int(array.max())
    if highest in declared and declared.issuperset(range(highest)):
        return  # the usual case, 0..n without a gap, needs no histogram
    strangers = {value: count for value, count in count_labels(array).items() if value not in declared}
    if not strangers:
        return
    listed = ", ".join(f"{value} ({count:,} voxels)" for value, count in list(strangers.items())[:8])
    old_brats = set(strangers) == {4} and {1, 2, 3} <= declared
    raise SegbenchError(
        "SB213",
        "the label map holds a value that is not declared"
        if len(strangers) == 1
        else f"the label map holds {len(strangers)} values that are not declared",
        path=path,
        expected=", ".join(str(value) for value in sorted(declared)),
        found=listed + (", ..." if len(strangers) > 8 else ""),
        mend=(
            "value 4 is the enhancing tumour of BraTS editions before 2023: write it as 3, or declare it in "
            "a copy of the card"
            if old_brats
            else None
        ),
    )


def _from_float(values: NDArray[Any], path: Path | str | None) -> LabelArray:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int((~np.isfinite(values)).sum())
        raise SegbenchError(
            "SB211",
            "voxels of a label map are not numbers",
            path=path,
            expected="finite values",
            found=f"{bad:,} NaN or infinite voxels",
        )
    if low < -TOLERANCE or high > LARGEST_LABEL + TOLERANCE:
        raise _no_label(low if low < 0 else high, path)
    dtype = np.uint8 if round(high) <= 255 else np.uint16
    result = np.empty(values.shape, dtype=dtype)
    flat_in, flat_out = values.reshape(-1), result.reshape(-1)
    for at in range(0, flat_in.size, _BLOCK):
        block = flat_in[at : at + _BLOCK]
        whole = np.rint(block)
        off = np.abs(block - whole)
        if float(off.max()) > TOLERANCE:
            raise _no_label(float(block[int(off.argmax())]), path)
        flat_out[at : at + _BLOCK] = whole
    if low != high and round(low) == round(high):
        raise _emptied(low, high, round(high), path)
    return result


def _from_scaled(stored: NDArray[Any], slope: float, inter: float, path: Path | str | None) -> LabelArray:
    """Labels of stored values under a scaling; refusals name it."""
    mend = (
        f"the file was saved from floats under scl_slope {slope:.9g}, scl_inter {inter:.9g}: save an array "
        "of integers, without scaling"
    )
    try:
        low, high = sorted(float(value) * slope + inter for value in (stored.min(), stored.max()))
        if not (np.isfinite(low) and np.isfinite(high)):
            with np.errstate(over="ignore", invalid="ignore"):
                return _from_float(stored.astype(np.float64) * slope + inter, path)  # says so
        if round(low) < 0 or round(high) > LARGEST_LABEL:
            raise _no_label(low if low < 0 else high, path)
        result = np.empty(stored.shape, dtype=np.uint8 if round(high) <= 255 else np.uint16)
        flat_in, flat_out = stored.reshape(-1), result.reshape(-1)
        for at in range(0, flat_in.size, _BLOCK):
            steps = flat_in[at : at + _BLOCK].astype(np.float64)
            whole = np.rint(steps * slope + inter)
            off = _misses(steps, whole, slope, inter, stored.dtype)
            worst = int(off.argmax())
            if off[worst] > 0:
                raise _no_label(float(steps[worst] * slope + inter), path)
            flat_out[at : at + _BLOCK] = np.maximum(whole, 0)
        if stored.min() != stored.max() and round(low) == round(high):
            raise _emptied(low, high, round(high), path)
    except SegbenchError as error:
        error.mend = mend
        raise
    return result


def _misses(
    steps: NDArray[np.float64], whole: NDArray[np.float64], slope: float, inter: float, dtype: np.dtype[Any]
) -> NDArray[np.float64]:
    """By how much each value misses its label beyond what is allowed; positive where it is not a label.

    Measured in steps of the stored values, where a tiny or a huge slope hides nothing: a value one step off
    is another value, however close the two lie once they are scaled.
    """
    meant = (whole - inter) / slope
    rounding = np.abs(steps) * float(np.finfo(np.float32).eps)
    if dtype.kind in "iu" and abs(slope) < LARGEST_FINE_SLOPE:
        return np.abs(steps - meant) - (0.5 + _ROUNDING + rounding)
    return np.abs(steps - meant) - np.maximum(min(1.0, 1.0 / abs(slope)) * TOLERANCE, 2 * rounding)


def _emptied(low: float, high: float, label: int, path: Path | str | None) -> SegbenchError:
    return SegbenchError(
        "SB212",
        "the values of the label map differ, but all of them would be one label",
        path=path,
        expected="labels as whole numbers",
        found=f"values from {low:.9g} to {high:.9g}, all of them label {label}",
        mend="save the labels as integers, as they are",
    )


def _no_label(value: float, path: Path | str | None) -> SegbenchError:
    return SegbenchError(
        "SB212",
        "the label map holds a value that is not a label",
        path=path,
        expected=f"whole numbers from 0 to {LARGEST_LABEL}",
        found=f"{value:.9g}",
        mend="labels are 0 and above: write background and what is not labelled as 0; or is this the image?"
        if value < 0
        else None,
    )
