"""Where voxels are: the same grid or not, in which order of axes, and the exact way to canonical order and
back.

Nothing here interpolates. A grid is compared by its eight corner voxels, because shape, spacing and origin
can each agree while the voxels lie elsewhere, and two harmless roundings of an affine differ everywhere but
there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segbench.volumes.header import VolumeHeader
from segbench.volumes.volume import UNIT_NAMES, UNITS_MM, Volume, spacing_of

AGREE_VOXELS = 0.01
"""Corner displacement, in voxels, up to which two affines are the same."""

MISPLACED_VOXELS = 0.5
"""Corner displacement, in voxels, beyond which two grids are different ones."""

SPACING_TOLERANCE = 1e-3
"""Relative difference of spacings that still counts as equal."""


class GridLike(Protocol):
    """What says where voxels are: a Volume or a VolumeHeader."""

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        ...

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Millimetres along (z, y, x)."""
        ...

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4), (i, j, k, 1) to RAS+ mm."""
        ...

    @property
    def positioned(self) -> bool:
        """Whether the file says where its voxels lie."""
        ...


@dataclass(frozen=True)
class Orientation:
    """A reordering of the axes of a grid: permutation and flips, nothing else.

    Attributes:
        axes: for each axis of the result (z, y, x) the axis of the source that becomes it.
        flips: for each axis of the result whether it runs the other way.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return self.axes == (0, 1, 2) and not any(self.flips)

    @property
    def inverse(self) -> Orientation:
        """The way back, exactly."""
        back = tuple(self.axes.index(axis) for axis in range(3))
        flips = tuple(self.flips[result] for result in back)
        return Orientation((back[0], back[1], back[2]), (flips[0], flips[1], flips[2]))

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """The reordered array, C-contiguous; leading axes (channels) stay. Itself when nothing moves."""
        return array if self.is_identity else np.ascontiguousarray(self.view(array))

    def view(self, array: NDArray[Any]) -> NDArray[Any]:
        """The reordered array without a copy, in whatever memory order that gives."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        index = tuple(slice(None, None, -1 if flip else None) for flip in self.flips)
        return moved[(..., *index)]

    def affine(self, affine: NDArray[np.float64], shape_zyx: tuple[int, int, int]) -> NDArray[np.float64]:
        """Affine of the reordered grid.

        Args:
            affine: (4, 4) of the source grid.
            shape_zyx: shape of the source grid.
        """
        result = np.array(affine, dtype=np.float64)
        # Array axes run z, y, x; affine columns i, j, k: axis a belongs to column 2 - a.
        for axis in range(3):
            source = self.axes[axis]
            column = affine[:3, 2 - source]
            result[:3, 2 - axis] = -column if self.flips[axis] else column
            if self.flips[axis]:
                result[:3, 3] += column * (shape_zyx[source] - 1)
        return result


def canonical_orientation(affine: NDArray[np.float64]) -> Orientation:
    """The reordering that brings a grid nearest to RAS+: x to the right, y to the front, z upwards.

    Of the six permutations the one with the largest sum of direction cosines is taken, so that the result
    depends on where the voxels are and not on the order in which they were stored. (A greedy choice, axis
    by axis, differs for strongly oblique grids.)

    Args:
        affine: (4, 4), (i, j, k, 1) to RAS+ mm.
    """
    norms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    cosines = np.asarray(affine[:3, :3], dtype=np.float64) / norms
    best: tuple[tuple[float, ...], tuple[int, ...]] | None = None
    for columns in permutations(range(3)):  # columns[r] = file axis that becomes canonical axis r (x, y, z)
        picked = cosines[:, columns]
        total = round(float(np.abs(np.diag(picked)).sum()), 6)
        signs = np.where(np.diag(picked) < 0, -1.0, 1.0)
        # Ties (exactly 45 degrees) are settled by the directions themselves, whatever their stored order.
        rank = (total, *(round(float(value), 6) for value in (picked * signs).ravel()))
        if best is None or rank > best[0]:
            best = rank, columns
    assert best is not None
    columns = best[1]
    axes = tuple(2 - columns[2 - axis] for axis in range(3))
    flips = tuple(bool(cosines[2 - axis, columns[2 - axis]] < 0) for axis in range(3))
    return Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))


def reorient(volume: Volume, orientation: Orientation) -> Volume:
    """The same voxels at the same places, stored in another order."""
    if orientation.is_identity:
        return volume
    affine = orientation.affine(volume.affine, volume.shape_zyx)
    spacing = tuple(volume.spacing_mm[axis] for axis in orientation.axes)
    return replace(
        volume,
        array=orientation.apply(volume.array),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        affine=affine,
    )


def to_canonical(volume: Volume) -> Volume:
    """The volume with its axes permuted and flipped to the nearest RAS+, no resampling, affine updated.

    `from_canonical` is the exact inverse on arrays.
    """
    return reorient(volume, canonical_orientation(volume.affine))


def from_canonical(array: NDArray[Any], original: Volume | NDArray[np.float64]) -> NDArray[Any]:
    """A canonical array back in the stored order of `original`.

    Args:
        array: (z, y, x) or (C, z, y, x) in the order of `to_canonical(original)`.
        original: the stored volume, or its affine.
    """
    affine = original.affine if isinstance(original, Volume) else original
    return canonical_orientation(affine).inverse.apply(array)


def corner_displacement(
    first: NDArray[np.float64], second: NDArray[np.float64], shape_zyx: tuple[int, int, int]
) -> float:
    """Largest distance between the eight corner voxels under two affines, in voxels.

    Args:
        first: (4, 4), (i, j, k, 1) to mm.
        second: the same for the other grid.
        shape_zyx: shape of both grids.

    Returns:
        Millimetres divided by the smallest spacing of either grid.
    """
    z, y, x = shape_zyx
    corners = np.array([(*ijk, 1) for ijk in product((0, x - 1), (0, y - 1), (0, z - 1))], dtype=np.float64)
    moved = corners @ (np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)).T
    distance = float(np.sqrt((moved[:, :3] ** 2).sum(axis=1)).max())
    return distance / min(*spacing_of(first), *spacing_of(second))


@dataclass(frozen=True)
class GeometryComparison:
    """How the grid of a prediction (or a second file) lies against that of a reference.

    Attributes:
        shape_equal: shapes (z, y, x) as stored.
        spacing_equal: spacings within 1e-3 relative, as stored.
        displacement_voxels: largest corner displacement, in voxels; None when the shapes differ, or when one
            of the two files does not say where it lies.
        orientation: the reordering that lays the prediction exactly on the reference's grid, when the two
            agree only after it; else None.
        reoriented_displacement_voxels: corner displacement after that reordering; None without one.
        position_known: both files say where they lie; where one does not, position decides nothing.
    """

    shape_equal: bool
    spacing_equal: bool
    displacement_voxels: float | None
    orientation: Orientation | None = None
    reoriented_displacement_voxels: float | None = None
    position_known: bool = True

    @property
    def same_grid(self) -> bool:
        """Whether voxels correspond as stored: equal shape and spacing, corners within half a voxel.

        Where a position is not known, shape and spacing alone tell.
        """
        if not (self.shape_equal and self.spacing_equal):
            return False
        if not self.position_known:
            return True
        return self.displacement_voxels is not None and self.displacement_voxels <= MISPLACED_VOXELS

    @property
    def shifted(self) -> bool:
        """Whether the grids are the same but more than a hundredth of a voxel apart: worth a warning."""
        moved = self.displacement_voxels if self.same_grid else self.reoriented_displacement_voxels
        return moved is not None and moved > AGREE_VOXELS

    @property
    def equal_after_reorientation(self) -> bool:
        """Whether only the order of the axes differs."""
        return not self.same_grid and self.orientation is not None


def compare_geometry(reference: GridLike, prediction: GridLike) -> GeometryComparison:
    """How two grids lie against each other; voxels are not looked at.

    Args:
        reference: anything with `shape_zyx`, `spacing_mm`, `affine` and `positioned` (a Volume or a
            VolumeHeader).
        prediction: the same.
    """
    shape_equal = reference.shape_zyx == prediction.shape_zyx
    spacing_equal = spacings_agree(reference.spacing_mm, prediction.spacing_mm)
    if not (reference.positioned and prediction.positioned):
        return GeometryComparison(shape_equal, spacing_equal, None, position_known=False)
    moved = None
    if shape_equal:
        moved = corner_displacement(reference.affine, prediction.affine, reference.shape_zyx)
    stored = GeometryComparison(shape_equal, spacing_equal, moved)
    if stored.same_grid:
        return stored
    orientation = _order_like(reference.affine, prediction.affine)
    if orientation is None or orientation.is_identity:
        return stored
    if tuple(prediction.shape_zyx[axis] for axis in orientation.axes) != reference.shape_zyx:
        return stored
    affine = orientation.affine(prediction.affine, prediction.shape_zyx)
    after = corner_displacement(reference.affine, affine, reference.shape_zyx)
    if after > MISPLACED_VOXELS or not spacings_agree(reference.spacing_mm, spacing_of(affine)):
        return stored
    return replace(stored, orientation=orientation, reoriented_displacement_voxels=after)


def unit_mend(first: Volume | VolumeHeader, second: Volume | VolumeHeader) -> str | None:
    """What to do about two spacings that differ because one file states its lengths in another unit."""
    if UNITS_MM[first.unit] == UNITS_MM[second.unit]:
        return None
    units = [UNIT_NAMES.get(each.unit, "no unit, taken as millimetres") for each in (first, second)]
    return f"the headers state lengths in {units[0]} and in {units[1]}: write the right unit into the header"


def shape_mend(first: Volume | VolumeHeader, second: Volume | VolumeHeader) -> str | None:
    """What to do about two shapes that differ because one array was written with its axes reversed."""
    if second.shape_zyx != first.shape_zyx[::-1]:
        return None
    return "the axes are in reverse order: write array.transpose(2, 1, 0), since NIfTI stores x, y, z"


def spacings_agree(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Whether two spacings differ by no more than 1e-3, relative to the first."""
    return all(abs(a - b) <= SPACING_TOLERANCE * a for a, b in zip(first, second, strict=True))


def reorient_like(prediction: Volume, reference: GridLike) -> Volume | None:
    """The prediction in the reference's order of axes, exactly, or None when no reordering lays it there.

    A prediction that lies there already is returned as it is.
    """
    comparison = compare_geometry(reference, prediction)
    if comparison.same_grid:
        return prediction
    return reorient(prediction, comparison.orientation) if comparison.orientation is not None else None


def _order_like(reference: NDArray[np.float64], other: NDArray[np.float64]) -> Orientation | None:
    """The reordering that makes the axes of `other` point as those of `reference`; None when none does."""
    unit_reference = reference[:3, :3] / np.sqrt((reference[:3, :3] ** 2).sum(axis=0))
    unit_other = other[:3, :3] / np.sqrt((other[:3, :3] ** 2).sum(axis=0))
    cosines = unit_reference.T @ unit_other
    columns = np.abs(cosines).argmax(axis=1)
    if sorted(columns.tolist()) != [0, 1, 2]:
        return None
    axes = tuple(2 - int(columns[2 - axis]) for axis in range(3))
    flips = tuple(bool(cosines[2 - axis, columns[2 - axis]] < 0) for axis in range(3))
    return Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
