"""Lung CT phantoms: a binary airway tree in two lungs, with honeycomb cysts that touch its walls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.data.phantoms.plan import Case, Made, Size
from segbench.data.phantoms.space import (
    Array,
    Capsule,
    Deformation,
    Ellipsoid,
    Grid,
    Triple,
    distance_to,
    triple,
)

AIRWAY = 1
NAMES = {AIRWAY: "airway"}
_LUMEN, _WALL, _LUNG, _CYST, _SOFT, _AIR = -950.0, -200.0, -820.0, -960.0, 40.0, -1000.0
_WALL_VOXELS = 1.5
_FLOOR_VOXELS = 0.75
_TRUNK_VOXELS: dict[Size, float] = {"tiny": 3.5, "small": 6.0, "full": 12.0}
_GENERATIONS: dict[Size, tuple[int, int]] = {"tiny": (4, 6), "small": (6, 9), "full": (8, 9)}


@dataclass(frozen=True, slots=True)
class _Branch:
    start: Triple
    direction: Triple
    length: float
    radius: float
    generation: int


def make(case: Case) -> Made:
    """One case; the calibration case is one straight capsule of known length."""
    grid, rng = case.grid, case.generator()
    voxel = grid.spacing[2]
    if case.calibration:
        length, radius = 0.55 * grid.extent[0], _TRUNK_VOXELS[case.size] * voxel
        # Oblique, so that no row of voxel centres lies along its surface.
        half = triple([length / 2 * part for part in _unit([1.0, 0.23, 0.31])])
        pieces = [Capsule(half, triple([-part for part in half]), radius)]
        analytic = {AIRWAY: pieces[0].volume_ml}
        deformation = Deformation()
    else:
        deformation = Deformation.draw(rng, grid, scale=grid.extent[2] / 90.0)
        pieces, analytic = _tree(rng, case, grid, deformation), {}
    satellites = _satellites(rng, case, grid, pieces) if "satellites" in case.traps else []
    cysts = [] if case.calibration else _cysts(rng, case, grid, pieces)
    wall = _WALL_VOXELS * voxel
    nearest = distance_to(grid, pieces, reach=wall + voxel)
    lumen = _one_piece(nearest <= 0.0, nearest)
    nearest[(nearest <= 0.0) & ~lumen] = wall + voxel
    apart = distance_to(grid, satellites, reach=wall + voxel) if satellites else nearest
    tissue = _chest(grid)
    holes = distance_to(grid, cysts, reach=voxel) if cysts else None
    _fill(tissue, nearest, apart, holes, wall, voxel)
    labels = (lumen | (apart <= 0.0)).astype(np.uint8) if satellites else lumen.astype(np.uint8)
    image = case.scanner.ct(rng, tissue)
    return Made({"CT": image}, labels, grid.spacing, NAMES, analytic)


def _tree(rng: np.random.Generator, case: Case, grid: Grid, deformation: Deformation) -> list[Capsule]:
    """Branches of a binary tree: child radius x 0.86 and x 0.72, length x U(0.68, 0.85), angle U(25, 50)."""
    voxel = grid.spacing[2]
    low, high = _GENERATIONS[case.size]
    generations = int(rng.integers(low, high + 1))
    factor = rng.uniform(0.82, 1.18)
    top = grid.extent[0] / 2
    trunk = _Branch(
        start=(0.98 * top, 0.0, 0.0),
        direction=(-1.0, 0.0, 0.0),
        length=0.33 * grid.extent[0],
        radius=_TRUNK_VOXELS[case.size] * voxel * factor,
        generation=0,
    )
    branches, pieces = [trunk], list[Capsule]()
    normal = _perpendicular(rng, trunk.direction)
    turns = [normal]
    while branches:
        branch, turn = branches.pop(0), turns.pop(0)
        end = _along(branch.start, branch.direction, branch.length)
        pieces.append(
            Capsule(triple(deformation.apply(branch.start)), triple(deformation.apply(end)), branch.radius)
        )
        if branch.generation + 1 >= generations or not _in_chest(grid, end):
            continue
        # Each fork turns by about a right angle against the one before, as airways do.
        across = _rotated(turn, branch.direction, math.radians(90 + rng.uniform(-25, 25)))
        for side, share in ((1.0, 0.86), (-1.0, 0.72)):
            angle = math.radians(rng.uniform(25, 50)) * side
            direction = _tilted(branch.direction, across, angle)
            radius = max(branch.radius * share * rng.uniform(0.92, 1.05), _FLOOR_VOXELS * voxel)
            length = branch.length * rng.uniform(0.68, 0.85)
            branches.append(_Branch(end, direction, length, radius, branch.generation + 1))
            turns.append(across)
    return pieces


def _in_chest(grid: Grid, point: Triple) -> bool:
    return all(abs(p) < 0.46 * extent for p, extent in zip(point, grid.extent, strict=True))


def _satellites(rng: np.random.Generator, case: Case, grid: Grid, pieces: list[Capsule]) -> list[Capsule]:
    """Two or three short labelled pieces that no branch reaches."""
    voxel = grid.spacing[2]
    found: list[Capsule] = []
    clearance = 4.0 * voxel
    for _ in range(400):
        if len(found) >= 3:
            break
        start = triple([rng.uniform(-0.4, 0.4) * extent for extent in grid.extent])
        direction = _unit(rng.standard_normal(3))
        end = _along(start, direction, 5.0 * voxel)
        radius = 1.3 * voxel
        middle = [np.array([[[(a + b) / 2]]]) for a, b in zip(start, end, strict=True)]
        at = (middle[0], middle[1], middle[2])
        gaps = [float(piece.distance(at)[0, 0, 0]) for piece in (*pieces, *found)]
        if min(gaps) > clearance + radius + 2.5 * voxel and _in_chest(grid, start) and _in_chest(grid, end):
            found.append(Capsule(start, end, radius))
    return found


def _cysts(rng: np.random.Generator, case: Case, grid: Grid, pieces: list[Capsule]) -> list[Capsule]:
    """Honeycomb: air bubbles that touch the outside of airway walls, so that a leak has where to go."""
    voxel = grid.spacing[2]
    cysts: list[Capsule] = []
    for _ in range({"tiny": 12, "small": 60, "full": 400}[case.size]):
        piece = pieces[int(rng.integers(len(pieces)))]
        radius = rng.uniform(1.5, 3.0) * voxel
        share = rng.uniform(0.1, 0.9)
        on_axis = triple([a + share * (b - a) for a, b in zip(piece.start, piece.end, strict=True)])
        away = _perpendicular(rng, _unit([b - a for a, b in zip(piece.start, piece.end, strict=True)]))
        centre = _along(on_axis, away, piece.radius + _WALL_VOXELS * voxel + radius)
        cysts.append(Capsule(centre, centre, radius))
    return cysts


def _chest(grid: Grid) -> Array:
    """Body with two lungs that nearly fill the field of view."""
    _, ey, ex = grid.extent
    tissue = np.empty(grid.shape)
    for slab in grid.slabs():
        points = grid.points(slab)
        z, y, x = points
        outline = (y / (0.56 * ey)) ** 2 + (x / (0.58 * ex)) ** 2
        tissue[slab] = np.where(outline < 1.0, _SOFT, _AIR) + 0.0 * z
        for side in (-1.0, 1.0):
            radii = (0.55 * grid.extent[0], 0.45 * ey, 0.30 * ex)
            lung = Ellipsoid((-0.06 * grid.extent[0], 0.0, side * 0.22 * ex), radii)
            tissue[slab][lung.level(points) < 1.0] = _LUNG
    return tissue


def _fill(
    tissue: Array, nearest: Array, apart: Array, holes: Array | None, wall: float, voxel: float
) -> None:
    """Cysts first, then walls, then lumen: an airway is never cut by a bubble beside it."""
    if holes is not None:
        tissue[(holes > 0.0) & (holes < 0.7 * voxel) & (tissue == _LUNG)] = -500.0
        tissue[holes <= 0.0] = _CYST
    for distance in (nearest, apart):
        tissue[(distance > 0.0) & (distance <= wall)] = _WALL
    for distance in (nearest, apart):
        tissue[distance <= 0.0] = _LUMEN


def _one_piece(lumen: NDArray[np.bool_], nearest: Array) -> NDArray[np.bool_]:
    """The component of the thickest part: a thin branch can break where it slips between voxel centres."""
    parts = np.zeros(lumen.shape, dtype=np.int32)
    ndimage.label(lumen, structure=np.ones((3, 3, 3)), output=parts)
    return lumen if parts.max() <= 1 else parts == parts.reshape(-1)[int(np.argmin(nearest))]


def _unit(values: Array | list[float]) -> Triple:
    z, y, x = triple(values)
    norm = math.sqrt(z * z + y * y + x * x)
    return z / norm, y / norm, x / norm


def _along(start: Triple, direction: Triple, length: float) -> Triple:
    z, y, x = (s + length * d for s, d in zip(start, direction, strict=True))
    return z, y, x


def _cross(a: Triple, b: Triple) -> Triple:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _perpendicular(rng: np.random.Generator, direction: Triple) -> Triple:
    return _unit(list(_cross(direction, _unit(rng.standard_normal(3)))))


def _tilted(direction: Triple, across: Triple, angle: float) -> Triple:
    c, s = math.cos(angle), math.sin(angle)
    return _unit([c * d + s * a for d, a in zip(direction, across, strict=True)])


def _rotated(vector: Triple, axis: Triple, angle: float) -> Triple:
    """The part of a vector across an axis, turned about it."""
    along = sum(v * a for v, a in zip(vector, axis, strict=True))
    across = _unit([v - along * a for v, a in zip(vector, axis, strict=True)])
    c, s = math.cos(angle), math.sin(angle)
    return _unit([c * u + s * w for u, w in zip(across, _cross(axis, across), strict=True)])
