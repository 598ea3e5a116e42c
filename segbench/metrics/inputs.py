"""Checks of what `evaluate_case` is given: shapes, spacing, regions, tolerances, label types.

Nothing here is silent: a wrong argument raises `ValueError` that names both values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.metrics.registry import suggestions
from segbench.volumes.header import SPACING_LIMITS_MM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    LabelMap = NDArray[Any]  # integer or bool

Spacing = tuple[float, float, float]
Regions = dict[str, tuple[int, ...]]


def check_spacing(spacing_mm: Sequence[float]) -> Spacing:
    """Return the spacing as three python floats, z y x, in mm; each must be finite and > 0."""
    values = tuple(float(value) for value in np.asarray(spacing_mm, dtype=np.float64).ravel())
    if len(values) != 3 or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(
            f"spacing_mm must be three finite numbers > 0 in the order z, y, x, found {tuple(values)!r}"
        )
    least, most = SPACING_LIMITS_MM
    if not all(least <= value <= most for value in values):
        raise ValueError(f"spacing_mm must lie within {least:g} and {most:g} mm, found {values!r}")
    return values


def check_regions(regions: Mapping[str, Sequence[int]]) -> Regions:
    """Return the regions as name -> tuple of distinct labels; no region may be without labels or hold label
    0.
    """
    if not regions:
        raise ValueError("regions is empty: name at least one region, e.g. {'tumour': (1,)}")
    checked: Regions = {}
    for name, labels in regions.items():
        try:
            given = tuple(labels)
            values = tuple(dict.fromkeys(int(label) for label in given))
            whole = all(int(label) == label for label in given)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"region {name!r}: labels must be integers, found {labels!r}") from error
        if not values:
            raise ValueError(f"region {name!r} has no labels")
        if not whole:
            raise ValueError(f"region {name!r}: labels must be integers, found {given!r}")
        if 0 in values:
            raise ValueError(f"region {name!r} holds label 0, which is the background")
        checked[name] = values
    return checked


def check_tolerance(tolerance_mm: float | Mapping[str, float], regions: Regions) -> dict[str, float]:
    """Return the NSD tolerance of each region in mm.

    Args:
        tolerance_mm: one number for all regions, or name -> number where the name `default` covers the rest.
        regions: the regions to cover.
    """
    if isinstance(tolerance_mm, Mapping):
        for name in tolerance_mm:
            if name not in regions and name != "default":
                raise ValueError(
                    f"nsd_tolerance_mm names {name!r}, which is not a region{suggestions(name, regions)}"
                )
        missing = [name for name in regions if name not in tolerance_mm]
        if missing and "default" not in tolerance_mm:
            raise ValueError(f"nsd_tolerance_mm has no number for region {missing[0]!r} and no 'default'")
        table = {name: float(tolerance_mm.get(name, tolerance_mm.get("default", 0.0))) for name in regions}
    else:
        table = dict.fromkeys(regions, float(tolerance_mm))
    for name, value in table.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(
                f"nsd_tolerance_mm of region {name!r} must be a finite number >= 0, found {value!r}"
            )
    return table


def check_label_map(array: Any, role: str) -> LabelMap:
    """Return the label map as a 3-D integer or bool array without copying integer input.

    Args:
        array: 3-D array-like, z y x. Float arrays whose values are all integers are converted.
        role: "reference" or "prediction", for the message.
    """
    labels = np.asarray(array)
    if labels.ndim != 3:
        raise ValueError(
            f"{role} must be a 3-D array (z, y, x), found shape {labels.shape}; "
            "give a 2-D map an axis of length 1"
        )
    if labels.dtype.kind in "biu":
        return labels
    if labels.dtype.kind != "f":
        raise ValueError(f"{role} must hold integers, found dtype {labels.dtype}")
    return _integers(labels, role)


def _integers(labels: NDArray[np.floating[Any]], role: str) -> LabelMap:
    converted = np.empty(labels.shape, dtype=np.int64)
    for index in range(labels.shape[0]):
        # Beyond 2**53 a double no longer says which integer it is; half precision cannot hold that limit.
        plane = labels[index].astype(np.promote_types(labels.dtype, np.float64), copy=False)
        if not np.isfinite(plane).all() or np.abs(plane).max(initial=0.0) > 2.0**53:
            raise ValueError(
                f"{role} holds NaN, infinite or huge values at z = {index}: labels must be integers"
            )
        converted[index] = plane
        if not np.array_equal(converted[index], plane):
            odd = plane[converted[index] != plane].flat[0]
            raise ValueError(f"{role} holds {odd!r} at z = {index}: labels must be integers")
    return converted


def check_pair(reference: Any, prediction: Any) -> tuple[LabelMap, LabelMap]:
    """Return both label maps checked; their shapes must be equal."""
    reference_map = check_label_map(reference, "reference")
    prediction_map = check_label_map(prediction, "prediction")
    if reference_map.shape != prediction_map.shape:
        raise ValueError(
            f"reference has shape {reference_map.shape} and prediction has shape {prediction_map.shape}: "
            "they must lie on the same grid"
        )
    return reference_map, prediction_map


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Return the physical diagonal of an array in mm: larger than any distance that can occur in it."""
    return math.sqrt(math.fsum((n * s) ** 2 for n, s in zip(shape, spacing_mm, strict=True)))
