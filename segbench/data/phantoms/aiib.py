"""Lung CT phantoms: a binary airway tree in two lungs, with honeycomb cysts that touch its walls."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.data.phantoms.plan import Case, Made, Size
from segbench.data.phantoms.scanner import ct
from segbench.data.phantoms.space import (
    Array,
    Capsule,
    Deformation,
    Ellipsoid,
    Grid,
    Vector,
    distance_to,
    unit,
)

AIRWAY = 1
_LUMEN, _WALL, _LUNG, _CYST, _SOFT, _AIR = -950.0, -200.0, -820.0, -960.0, 40.0, -1000.0
_WALL_VOXELS = 1.5
_FLOOR_VOXELS = 0.75
_TRUNK_VOXELS: dict[Size, float] = {"tiny": 3.5, "small": 6.0, "full": 12.0}
_GENERATIONS: dict[Size, tuple[int, int]] = {"tiny": (4, 6), "small": (6, 9), "full": (8, 9)}
_CYSTS: dict[Size, int] = {"tiny": 12, "small": 60, "full": 400}


def make(case: Case) -> Made:
    """One case; the calibration case is one straight capsule of known length."""
    grid, rng = case.grid, case.generator()
    voxel = grid.spacing[2]
    if case.calibration:
        # Oblique, so that no row of voxel centres lies along its surface.
        half = 0.55 * grid.extent[0] / 2 * unit(np.array([1.0, 0.23, 0.31]))
        pieces = [Capsule(half, -half, _TRUNK_VOXELS[case.size] * voxel)]
        analytic = {AIRWAY: pieces[0].volume_ml}
    else:
        pieces, analytic = _tree(rng, case), {}
    satellites = _satellites(rng, grid, pieces) if "satellites" in case.traps else []
    cysts = [] if case.calibration else _cysts(rng, case, pieces)
    wall = _WALL_VOXELS * voxel
    nearest = distance_to(grid, pieces, reach=wall + voxel)
    lumen = _one_piece(nearest <= 0.0, nearest)
    nearest[(nearest <= 0.0) & ~lumen] = wall + voxel
    apart = distance_to(grid, satellites, reach=wall + voxel)
    tissue = _chest(grid)
    holes = distance_to(grid, cysts, reach=voxel)
    # Cysts first, then walls, then lumen: an airway is never cut by a bubble beside it.
    tissue[(holes > 0.0) & (holes < 0.7 * voxel) & (tissue == _LUNG)] = -500.0
    tissue[holes <= 0.0] = _CYST
    nearest = np.minimum(nearest, apart)
    tissue[nearest <= wall] = _WALL
    tissue[nearest <= 0.0] = _LUMEN
    return {"CT": ct(case, rng, tissue)}, (nearest <= 0.0).astype(np.uint8), analytic


def _tree(rng: np.random.Generator, case: Case) -> list[Capsule]:
    """Branches of a binary tree: child radius x 0.86 and x 0.72, length x U(0.68, 0.85), angle U(25, 50)."""
    grid, voxel = case.grid, case.grid.spacing[2]
    deformation = Deformation.draw(rng, grid, scale=grid.extent[2] / 90.0)
    low, high = _GENERATIONS[case.size]
    generations = int(rng.integers(low, high + 1))
    radius = _TRUNK_VOXELS[case.size] * voxel * rng.uniform(0.82, 1.18)
    start, down = np.array([0.98 * grid.extent[0] / 2, 0.0, 0.0]), np.array([-1.0, 0.0, 0.0])
    branches = [(start, down, _perpendicular(rng, down), 0.33 * grid.extent[0], radius)]
    pieces: list[Capsule] = []
    for generation in range(generations):
        forks: list[tuple[Vector, Vector, Vector, float, float]] = []
        for start, direction, turn, length, radius in branches:
            end = start + length * direction
            pieces.append(Capsule(deformation.apply(start), deformation.apply(end), radius))
            if generation + 1 >= generations or not _in_chest(grid, end):
                continue
            # Each fork turns by about a right angle against the one before, as airways do.
            across = _rotated(turn, direction, math.radians(90 + rng.uniform(-25, 25)))
            for side, share in ((1.0, 0.86), (-1.0, 0.72)):
                angle = math.radians(rng.uniform(25, 50)) * side
                thinner = max(radius * share * rng.uniform(0.92, 1.05), _FLOOR_VOXELS * voxel)
                tilted = unit(math.cos(angle) * direction + math.sin(angle) * across)
                forks.append((end, tilted, across, length * rng.uniform(0.68, 0.85), thinner))
        branches = forks
    return pieces


def _in_chest(grid: Grid, point: Vector) -> bool:
    return bool((np.abs(point) < 0.46 * grid.extent).all())


def _satellites(rng: np.random.Generator, grid: Grid, pieces: list[Capsule]) -> list[Capsule]:
    """Two or three short labelled pieces that no branch reaches."""
    voxel = grid.spacing[2]
    found: list[Capsule] = []
    clearance = 4.0 * voxel
    for _ in range(400):
        if len(found) >= 3:
            break
        start = np.array([rng.uniform(-0.4, 0.4) * extent for extent in grid.extent])
        end = start + 5.0 * voxel * unit(rng.standard_normal(3))
        radius = 1.3 * voxel
        gap = min(float(piece.distance((start + end) / 2)) for piece in (*pieces, *found))
        if gap > clearance + radius + 2.5 * voxel and _in_chest(grid, start) and _in_chest(grid, end):
            found.append(Capsule(start, end, radius))
    return found


def _cysts(rng: np.random.Generator, case: Case, pieces: list[Capsule]) -> list[Capsule]:
    """Honeycomb: air bubbles that touch the outside of airway walls, so that a leak has where to go."""
    voxel = case.grid.spacing[2]
    cysts: list[Capsule] = []
    for _ in range(_CYSTS[case.size]):
        piece = pieces[int(rng.integers(len(pieces)))]
        radius = rng.uniform(1.5, 3.0) * voxel
        along = piece.end - piece.start
        on_axis = piece.start + rng.uniform(0.1, 0.9) * along
        away = _perpendicular(rng, unit(along))
        centre = on_axis + (piece.radius + _WALL_VOXELS * voxel + radius) * away
        cysts.append(Capsule(centre, centre, radius))
    return cysts


def _chest(grid: Grid) -> Array:
    """Body with two lungs that nearly fill the field of view."""
    ez, ey, ex = grid.extent
    tissue = np.empty(grid.shape)
    for slab, points in grid.slabs():
        z, y, x = points
        outline = (y / (0.56 * ey)) ** 2 + (x / (0.58 * ex)) ** 2
        tissue[slab] = np.where(outline < 1.0, _SOFT, _AIR) + 0.0 * z
        for side in (-1.0, 1.0):
            centre, radii = (-0.06 * ez, 0.0, side * 0.22 * ex), (0.55 * ez, 0.45 * ey, 0.30 * ex)
            lung = Ellipsoid(np.array(centre), np.array(radii))
            tissue[slab][lung.level(points) < 1.0] = _LUNG
    return tissue


def _one_piece(lumen: NDArray[np.bool_], nearest: Array) -> NDArray[np.bool_]:
    """The component of the thickest part: a thin branch can break where it slips between voxel centres."""
    parts = np.zeros(lumen.shape, dtype=np.int32)
    ndimage.label(lumen, structure=np.ones((3, 3, 3)), output=parts)
    return lumen if parts.max() <= 1 else parts == parts.reshape(-1)[int(np.argmin(nearest))]


def _cross(a: Vector, b: Vector) -> Vector:
    """Written out: the same bits whichever numpy is installed."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _perpendicular(rng: np.random.Generator, direction: Vector) -> Vector:
    return unit(_cross(direction, unit(rng.standard_normal(3))))


def _rotated(vector: Vector, axis: Vector, angle: float) -> Vector:
    """The part of a vector across an axis, turned about it."""
    across = unit(vector - float((vector * axis).sum()) * axis)
    return unit(math.cos(angle) * across + math.sin(angle) * _cross(axis, across))
