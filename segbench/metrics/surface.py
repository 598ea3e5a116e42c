"""Metrics that follow from the distances between two surfaces, and the words they are defined with.

The **boundary** of a mask is each of its voxels with at least one of the six face neighbours outside the
mask; outside of the array counts as outside. The **distance** between two voxels is Euclidean between their
centres in mm: float64, squares summed in the order z, y, x, one square root. D1 holds for each boundary voxel
of the prediction the distance to the nearest of the reference, D2 the reverse, both in raster order, and the
pool is D1 followed by D2. Every function here takes D1 and D2 and returns one number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Distances = NDArray[np.float64]
    Mask = NDArray[np.bool_]

TIE = 1.0 + 1e-12
"""A distance equal to the tolerance is inside it. Distances are rounded sums, so 3 steps of 0.1 mm come out a
bit above 0.3: the comparison allows this much relative rounding and no more."""


def boundary(mask: Mask) -> Mask:
    """Return the boundary voxels of a mask: those with a face neighbour outside of it.

    Args:
        mask: 3-D bool array, z y x. Outside of the array counts as outside of the mask.

    Returns:
        Bool array of the same shape. An axis of length 1 makes every voxel a boundary voxel.
    """
    inner = mask.copy()
    for axis in range(mask.ndim):
        ahead = _along(axis, slice(1, None))
        behind = _along(axis, slice(None, -1))
        inner[behind] &= mask[ahead]
        inner[ahead] &= mask[behind]
        inner[_along(axis, slice(0, 1))] = False
        inner[_along(axis, slice(-1, None))] = False
    return mask & ~inner


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if index == axis else slice(None) for index in range(3))


def percentile_95(distances: Distances) -> float:
    """Return the 95th percentile with linear interpolation, the bits of `numpy.percentile(distances, 95)`."""
    return float(np.percentile(distances, 95))


def hd(d1: Distances, d2: Distances) -> float:
    """Return the Hausdorff distance in mm, max(pool).

    Source: Huttenlocher et al. 1993; equal to loli/medpy metric/binary.py hd.
    """
    return float(max(d1.max(), d2.max()))


def hd95(d1: Distances, d2: Distances) -> float:
    """Return the 95th percentile of the pooled distances in mm.

    Source: loli/medpy metric/binary.py hd95; what the SegMamba-V2 paper reports.
    """
    return percentile_95(np.concatenate((d1, d2)))


def hd95_max(d1: Distances, d2: Distances) -> float:
    """Return the larger of the two directed 95th percentiles in mm.

    Source: Project-MONAI/MONAI metrics/hausdorff_distance.py; Metrics Reloaded.
    """
    return max(percentile_95(d1), percentile_95(d2))


def assd(d1: Distances, d2: Distances) -> float:
    """Return the mean of the pooled distances in mm.

    Source: loli/medpy >= 0.5 metric/binary.py assd; MONAI symmetric average surface distance.
    """
    return float(np.concatenate((d1, d2)).mean())


def masd(d1: Distances, d2: Distances) -> float:
    """Return the mean of the two directed means in mm.

    Source: Project-MONAI/MetricsReloaded MASD (panoptica calls it ASSD).
    """
    return float((d1.mean() + d2.mean()) / 2.0)


def nsd(d1: Distances, d2: Distances, tolerance_mm: float) -> float:
    """Return the share of boundary voxels, of both surfaces together, within the tolerance of the other
    surface.

    Args:
        d1: distances of the prediction's boundary in mm.
        d2: distances of the reference's boundary in mm.
        tolerance_mm: >= 0. A distance equal to it is inside; the comparison is `d <= t * (1 + 1e-12)`.

    Source: Nikolov et al. 2021 in its voxel form; Project-MONAI/MONAI metrics/surface_dice.py.
    """
    limit = tolerance_mm * TIE
    inside = int(np.count_nonzero(d1 <= limit)) + int(np.count_nonzero(d2 <= limit))
    return inside / (d1.size + d2.size)


DISTANCE_FUNCTIONS: dict[str, Callable[[Distances, Distances], float]] = {
    "hd": hd,
    "hd95": hd95,
    "hd95_max": hd95_max,
    "assd": assd,
    "masd": masd,
}
"""Name to function for every metric in mm; `nsd` takes a tolerance and stands apart."""


def surface_metrics(
    d1: Distances, d2: Distances, names: tuple[str, ...], tolerance_mm: float
) -> dict[str, float]:
    """Return the distance metrics asked for, the bits of the functions above, each list sorted once.

    Args:
        d1: distances from the prediction's boundary, raster order, at least one.
        d2: distances from the reference's boundary, raster order, at least one.
        names: any of `DISTANCE_FUNCTIONS` and `nsd`; others are ignored.
        tolerance_mm: tolerance of `nsd` in mm.
    """
    values = {name: DISTANCE_FUNCTIONS[name](d1, d2) for name in ("assd", "masd") if name in names}
    if not any(name in names for name in ("hd", "hd95", "hd95_max", "nsd")):
        return values
    # numpy sorts an order of magnitude faster than it selects percentiles, and a sorted list holds all of
    # them.
    sorted1, sorted2 = np.sort(d1), np.sort(d2)
    if "hd" in names:
        values["hd"] = float(max(sorted1[-1], sorted2[-1]))
    if "hd95" in names:
        values["hd95"] = _pooled_percentile_95(sorted1, sorted2)
    if "hd95_max" in names:
        values["hd95_max"] = max(_sorted_percentile_95(sorted1), _sorted_percentile_95(sorted2))
    if "nsd" in names:
        limit = tolerance_mm * TIE
        inside = np.searchsorted(sorted1, limit, "right") + np.searchsorted(sorted2, limit, "right")
        values["nsd"] = int(inside) / (d1.size + d2.size)
    return values


def _sorted_percentile_95(ordered: Distances) -> float:
    position = (ordered.size - 1) * 0.95
    below = int(position)
    return _between(ordered[below], ordered[min(below + 1, ordered.size - 1)], position - below)


def _pooled_percentile_95(sorted1: Distances, sorted2: Distances) -> float:
    """Return the 95th percentile of two sorted lists together, from their upper ends alone."""
    size = sorted1.size + sorted2.size
    position = (size - 1) * 0.95
    below = int(position)
    top = size - below
    upper = np.sort(np.concatenate((sorted1[-top:], sorted2[-top:])))[-top:]
    return _between(upper[0], upper[min(1, top - 1)], position - below)


def _between(low: np.float64, high: np.float64, share: float) -> float:
    """Return the interpolated value, from the nearer end as numpy does: it changes the last bit."""
    step = high - low
    return float(high - step * (1.0 - share) if share >= 0.5 else low + step * share)
