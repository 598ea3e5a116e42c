"""HD95 weighted by surface area: the number of the BraTS 2023 challenge.

Where eight voxels of a 2 x 2 x 2 window are not all inside or all outside, the surface passes between them: a
**surfel** at the window's centre, with the area that marching cubes gives it. The 95th percentile of the
distances from the surfels of one mask to the nearest surfel of the other is taken over area, without
interpolation, in both directions; the larger is HD95.

The area of a window follows from the side with at most four voxels. Its groups of voxels that share faces add
up, and each of the six shapes that a group can have is cut into triangles, given here by their normals in
eighths of a voxel face.

Source: google-deepmind/surface-distance metrics.py, `compute_surface_distances` and
`compute_robust_hausdorff` (definition; no code), as rachitsaluja/BraTS-2023-Metrics calls them; Lorensen &
Cline 1987 (marching cubes).
"""

from __future__ import annotations

import itertools
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from segbench.metrics.boxes import box_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segbench.metrics.boxes import Mask
    from segbench.metrics.inputs import Spacing

_CORNERS: tuple[tuple[int, ...], ...] = tuple(itertools.product((0, 1), repeat=3))


def surfel_hd95(reference: Mask, prediction: Mask, spacing_mm: Spacing) -> float:
    """Return the larger of the two directed 95th percentiles over area, in mm; infinite for an empty mask.

    Args:
        reference: bool array, z y x.
        prediction: bool array of the same shape.
        spacing_mm: voxel size (z, y, x) in mm.
    """
    from scipy import spatial  # pyright: ignore[reportMissingTypeStubs]

    box = box_of(reference, prediction)
    if box is None or not reference.any() or not prediction.any():
        return float("inf")
    areas = _areas(spacing_mm)
    places, weights = zip(
        *(_surfels(np.pad(mask[box], 1), areas) for mask in (reference, prediction)), strict=True
    )
    tree = cast("Any", spatial).cKDTree
    trees = [tree(at * np.asarray(spacing_mm), balanced_tree=False, compact_nodes=False) for at in places]
    directed: list[float] = []
    for this, other in ((0, 1), (1, 0)):
        nearest: NDArray[np.int64] = trees[other].query(trees[this].data)[1]
        offsets = (places[this] - places[other][nearest]) * np.asarray(spacing_mm)
        # Distances from whole steps: those that are equal on the grid are equal in their bits.
        distances = np.sqrt(np.square(offsets[:, ::-1]).sum(axis=1))
        directed.append(_percentile_95(distances, weights[this]))
    return max(directed)


def _surfels(padded: Mask, areas: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The windows (n, 3) that a mask's surface passes, in raster order, and the area in each in mm2."""
    code = np.zeros([n - 1 for n in padded.shape], np.uint8)
    for bit, corner in enumerate(_CORNERS):
        window = tuple(slice(c, n - 1 + c) for c, n in zip(corner, padded.shape, strict=True))
        code |= padded[window].view(np.uint8) << np.uint8(bit)
    flat = np.flatnonzero((code != 0) & (code != 255))
    places = np.stack(np.unravel_index(flat, code.shape), axis=1)
    return places, areas[code.ravel()[flat]]


def _percentile_95(distances: NDArray[np.float64], areas: NDArray[np.float64]) -> float:
    """The first distance at which 95 % of the area is reached."""
    order = np.lexsort((areas, distances))
    ordered = areas[order]
    share = np.cumsum(ordered) / ordered.sum()
    return float(distances[order][min(int(np.searchsorted(share, 0.95)), share.size - 1)])


@lru_cache(maxsize=64)
def _areas(spacing_mm: Spacing) -> NDArray[np.float64]:
    """(256,) the area in mm2 of the surface in a window, by which of its corners are inside."""
    z, y, x = spacing_mm
    faces = np.array((y * x, z * x, z * y))
    areas = np.zeros(256)
    for code in range(256):
        inside = {corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1}
        smaller = inside if len(inside) <= 4 else set(_CORNERS) - inside
        normals = [normal for group in _groups(smaller) for normal in _triangles(group)]
        areas[code] = sum(float(np.linalg.norm(np.array(normal) / 8 * faces)) for normal in normals)
    return areas


def _groups(corners: set[tuple[int, ...]]) -> list[set[tuple[int, ...]]]:
    """Corners in groups that hang together along the cube's edges."""
    groups: list[set[tuple[int, ...]]] = []
    for corner in sorted(corners):
        touching = [group for group in groups if any(_step(corner, other) is not None for other in group)]
        groups = [group for group in groups if group not in touching]
        groups.append({corner}.union(*touching))
    return groups


def _step(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    """The axis along which two corners are neighbours, None where they are not."""
    axes = [axis for axis in range(3) if one[axis] != other[axis]]
    return axes[0] if len(axes) == 1 else None


def _triangles(group: set[tuple[int, ...]]) -> list[NDArray[np.int64]]:
    """The normals (z, y, x) of a group's triangles in eighths of a voxel face, without their signs."""
    steps = [(pair, axis) for pair in itertools.combinations(group, 2) if (axis := _step(*pair)) is not None]
    axes = [axis for _, axis in steps]
    one, unit = np.ones(3, np.int64), np.eye(3, dtype=np.int64)
    if not axes:
        return [one]
    if len(group) == 2:
        return [2 * (one - unit[axes[0]])] * 2
    if len(set(axes)) == 2:  # corners of one face of the cube
        across = 4 * unit[3 - sum(set(axes))]
        return [one, 2 * one, across] if len(group) == 3 else [across, across]
    degree = Counter(corner for pair, _ in steps for corner in pair)
    if max(degree.values()) == 3:  # a corner and its three neighbours
        return [one, one, 2 * one, 2 * one]
    middle = next(axis for pair, axis in steps if all(degree[corner] == 2 for corner in pair))
    ends = [unit[axis] for axis in range(3) if axis != middle]
    return [one, 3 * one, *(2 * (unit[middle] + end) for end in ends)]  # a path of three steps
