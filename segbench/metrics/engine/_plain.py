"""The plain engine: numpy and scipy only. Oracle of the tests, fallback without numba, and path for small
maps.

Exact by definition, not by luck: a k-d tree finds the nearest boundary voxel in its own floating point
arithmetic, which can pick the longer of two distances that differ in the last bit. `nearest_squares`
recomputes every distance from the integer positions by the formula of `surface.py` and looks at all
neighbours that are as near as rounding can tell apart.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.metrics.boxes import box_of
from segbench.metrics.engine.measure import Measurement
from segbench.metrics.overlap import Counts
from segbench.metrics.surface import boundary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segbench.metrics.inputs import LabelMap, Regions, Spacing

    Points = NDArray[np.integer[Any]]
    Distances = NDArray[np.float64]


def measure(
    reference: LabelMap, prediction: LabelMap, *, spacing_mm: Spacing, regions: Regions, distances: bool
) -> dict[str, Measurement]:
    """Return counts and distances of every region.

    Args:
        reference: 3-D integer label map, z y x.
        prediction: 3-D integer label map of the same shape.
        spacing_mm: voxel size in mm, z y x.
        regions: name -> labels.
        distances: False leaves the distance lists out.
    """
    box = box_of(reference, prediction)
    if box is None:
        return dict.fromkeys(regions, Measurement(Counts(0, 0, 0)))
    inner_reference, inner_prediction = reference[box], prediction[box]
    return {
        name: _measure_region(
            region_mask(inner_reference, labels),
            region_mask(inner_prediction, labels),
            spacing_mm=spacing_mm,
            distances=distances,
        )
        for name, labels in regions.items()
    }


def region_mask(labels: LabelMap, members: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the voxels whose label is one of `members`."""
    if labels.dtype == np.bool_:
        return labels if 1 in members else np.zeros(labels.shape, dtype=np.bool_)
    limits = np.iinfo(labels.dtype)
    mask = np.zeros(labels.shape, dtype=np.bool_)
    for label in members:
        if limits.min <= label <= limits.max:
            mask |= labels == label
    return mask


def _measure_region(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    *,
    spacing_mm: Spacing,
    distances: bool,
) -> Measurement:
    counts = Counts(
        int(np.count_nonzero(reference)),
        int(np.count_nonzero(prediction)),
        int(np.count_nonzero(reference & prediction)),
    )
    if not distances or not counts.reference or not counts.prediction:
        return Measurement(counts)
    box = box_of(reference, prediction)
    assert box is not None
    # The crop holds every voxel of the region, so beyond its edge is "outside" exactly as beyond the array's.
    reference_border, prediction_border = boundary(reference[box]), boundary(prediction[box])
    d1 = surface_distances(prediction_border, reference_border, spacing_mm)
    d2 = surface_distances(reference_border, prediction_border, spacing_mm)
    return Measurement(counts, d1, d2)


def surface_distances(source: NDArray[np.bool_], target: NDArray[np.bool_], spacing_mm: Spacing) -> Distances:
    """Return for each voxel of `source`, in raster order, the distance in mm to the nearest voxel of
    `target`.
    """
    points = np.argwhere(source)
    away = ~target[source]
    distances = np.zeros(len(points), dtype=np.float64)
    distances[away] = np.sqrt(nearest_squares(points[away], np.argwhere(target), spacing_mm))
    return distances


def nearest_squares(points: Points, targets: Points, spacing_mm: Spacing) -> Distances:
    """Return the exact squared distance in mm2 from each point to the nearest target.

    Args:
        points: (n, 3) integer voxel positions, z y x.
        targets: (m, 3) integer voxel positions, m >= 1.
        spacing_mm: voxel size in mm, z y x.

    Returns:
        (n,) float64: the smallest value of the formula of `surface.py` over all targets, whatever the
        rounding of the search.
    """
    best = np.full(len(points), np.inf)
    if not len(points):
        return best
    # scipy.spatial takes a third of a second to import: only what needs a tree pays for it.
    spatial: Any = importlib.import_module("scipy.spatial")

    spacing = np.asarray(spacing_mm, dtype=np.float64)
    tree: Any = spatial.cKDTree(targets * spacing, balanced_tree=False, compact_nodes=False)
    if rounding_free(spacing_mm, int(max(points.max(), targets.max()))):
        nearest: Points = tree.query(points * spacing, k=1)[1]
        return squared_mm(points, targets[nearest], spacing)
    # The tree works on rounded coordinates: an error of some ulp of the largest coordinate in each distance.
    # As many neighbours are looked at as may tie within it.
    slack = 1e-12 * float(max((points * spacing).max(), (targets * spacing).max()))
    pending = np.arange(len(points))
    count = 2
    while len(pending):
        count = min(count, len(targets))
        wanted = list(range(1, count + 1))
        found, nearest = tree.query(points[pending] * spacing, k=wanted)
        for column in range(count):
            squared = squared_mm(points[pending], targets[nearest[:, column]], spacing)
            best[pending] = np.minimum(best[pending], squared)
        if count == len(targets):
            break
        pending = pending[found[:, -1] <= found[:, 0] * (1.0 + 1e-12) + slack]
        count *= 4
    return best


def squared_mm(points: Points, targets: Points, spacing: Distances) -> Distances:
    """Return the squared distances in mm2 between paired positions, summed in the order z, y, x."""
    steps = (points - targets) * spacing
    steps *= steps
    return (steps[:, 0] + steps[:, 1]) + steps[:, 2]


def rounding_free(spacing_mm: Spacing, extent: int) -> bool:
    """Tell whether every squared distance of this grid is computed without any rounding.

    True for spacings such as 1, 0.5 or 3.75: then real ties are equal numbers and one neighbour is enough.
    """
    fractions = [value.as_integer_ratio() for value in spacing_mm]
    common = math.lcm(*(denominator for _, denominator in fractions))
    largest = sum((extent * numerator * (common // denominator)) ** 2 for numerator, denominator in fractions)
    return largest < 2**53
