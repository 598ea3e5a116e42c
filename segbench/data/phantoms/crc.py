"""Colorectal CT phantoms: a bowel on a random curve, a tumour of its wall, and a polyp that is none."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segbench.data.phantoms.plan import Case, Made
from segbench.data.phantoms.scanner import ct
from segbench.data.phantoms.space import (
    Array,
    Capsule,
    Deformation,
    Ellipsoid,
    Grid,
    Vector,
    blob,
    distance_to,
)

TUMOUR = 1
_AIR, _FAT, _MUSCLE, _BONE = -1000.0, -90.0, 50.0, 260.0
_WALL_HU, _STOOL_HU, _GAS_HU = 45.0, 20.0, -900.0
_CONTRAST_HU = 12.0
"""How much brighter the tumour is than the wall."""
_WALL_MM = 3.0
_VOLUME_ML = (0.5, 20.0)


def make(case: Case) -> Made:
    """One case; the calibration case holds one ellipsoid of known volume and a straight bowel beside it."""
    grid, rng = case.grid, case.generator()
    _, ey, ex = grid.extent
    labels = np.zeros(grid.shape, dtype=np.uint8)
    polyp, analytic = None, {}
    if case.calibration:
        below, above = (np.array([z, 0.25 * ey, -0.2 * ex]) for z in (-30.0, 30.0))
        pieces = [Capsule(below, above, 10.0)]
        body = Ellipsoid(np.array([0.0, -0.1 * ey, 0.1 * ex]), np.array([24.0, 14.0, 16.0]))
        for slab, points in grid.slabs():
            labels[slab] = body.level(points) < 1.0
        analytic = {TUMOUR: body.volume_ml}
    else:
        pieces = _bowel(rng, grid)
        polyp = _polyp(rng, pieces)
    lumen = distance_to(grid, pieces, reach=2.5 * _WALL_MM)
    if not case.calibration and "empty_label" not in case.traps:
        labels = _tumour(rng, case, pieces, lumen)
    tissue = _tissue(rng, grid, lumen, polyp)
    tissue[labels == TUMOUR] = _WALL_HU + _CONTRAST_HU
    return {"CT": ct(case, rng, tissue)}, labels, analytic


def _bowel(rng: np.random.Generator, grid: Grid) -> list[Capsule]:
    """Pieces along a curve; the inner radius, 8 to 14 mm, changes slowly."""
    curve = _curve(rng, grid)
    deformation = Deformation.draw(rng, grid, scale=0.6)
    mean, swing, phase = rng.uniform(9.5, 12.5), rng.uniform(0.3, 1.5), rng.uniform(0, 2 * math.pi)
    radii = [mean + swing * math.sin(phase + 0.5 * index) for index in range(len(curve))]
    moved = [deformation.apply(point) for point in curve]
    return [
        Capsule(a, b, (r + s) / 2) for a, b, r, s in zip(moved, moved[1:], radii, radii[1:], strict=False)
    ]


def _curve(rng: np.random.Generator, grid: Grid) -> list[Array]:
    """A smooth random curve (Catmull-Rom) through five points from below to above, a point every 4 mm."""
    reach = 0.27 * min(grid.extent[1], grid.extent[2], 110.0)
    heights = np.linspace(-0.42, 0.42, 5) * min(grid.extent[0], 130.0)
    anchors = [np.array([h, *(rng.uniform(-reach, reach) for _ in range(2))]) for h in heights]
    anchors = [2 * anchors[0] - anchors[1], *anchors, 2 * anchors[-1] - anchors[-2]]
    points: list[Array] = []
    for before, start, end, after in zip(anchors, anchors[1:], anchors[2:], anchors[3:], strict=False):
        steps = max(2, math.ceil(math.sqrt(float(((end - start) ** 2).sum())) / 4.0))
        linear = end - before
        square = 2 * before - 5 * start + 4 * end - after
        cubic = 3 * start - before - 3 * end + after
        points += [
            0.5 * (2 * start + linear * t + square * t**2 + cubic * t**3) for t in np.arange(steps) / steps
        ]
    return [*points, anchors[-2]]


def _polyp(rng: np.random.Generator, pieces: list[Capsule]) -> Ellipsoid:
    """A decoy on the inner wall: as dense as the wall, not brighter, and not labelled."""
    piece = pieces[int(rng.integers(len(pieces) // 4, 3 * len(pieces) // 4))]
    centre = _around(rng, piece, piece.radius - 2.0)
    return Ellipsoid(centre, np.full(3, rng.uniform(3.0, 5.0)))


def _around(rng: np.random.Generator, piece: Capsule, distance: float) -> Vector:
    """A point at a distance from where a piece begins, in a random direction of its slice."""
    angle = rng.uniform(0, 2 * math.pi)
    return piece.start + np.array([0.0, distance * math.sin(angle), distance * math.cos(angle)])


def _tumour(rng: np.random.Generator, case: Case, pieces: list[Capsule], lumen: Array) -> NDArray[np.uint8]:
    """An irregular thickening of the wall whose volume is log-uniform from 0.5 to 20 ml.

    The radius of the body is bisected until what is left of it outside of the bowel's core has that volume.
    """
    grid = case.grid
    piece = pieces[int(rng.integers(len(pieces) // 5, max(len(pieces) // 5 + 1, 4 * len(pieces) // 5)))]
    centre = _around(rng, piece, piece.radius)
    low, high = (math.log(v) for v in _VOLUME_ML)
    wanted = math.exp(rng.uniform(low + 0.1, high - 0.1))
    level_of = blob(rng, centre, 1.0)
    level = np.empty(grid.shape)
    for slab, points in grid.slabs():
        level[slab] = level_of(points)
    if "thin_tumour" in case.traps:
        # One or two slices: the planes nearest to the centre.
        near = np.argsort(np.abs(grid.axis(0) - centre[0]), kind="stable")[: int(rng.integers(1, 3))]
        level[np.delete(np.arange(grid.shape[0]), near)] = np.inf
        wanted = min(wanted, 4.0)
    level[lumen < -0.45 * piece.radius] = np.inf  # the core of the bowel stays open
    per_voxel = math.prod(grid.spacing) / 1000.0
    smallest, largest = 1.0, 60.0
    for _ in range(40):
        middle = 0.5 * (smallest + largest)
        if np.count_nonzero(level < middle) * per_voxel < wanted:
            smallest = middle
        else:
            largest = middle
    return (level < largest).astype(np.uint8)


def _tissue(rng: np.random.Generator, grid: Grid, lumen: Array, polyp: Ellipsoid | None) -> Array:
    """Body of fat with a muscle ring and a spine; the bowel's wall, and gas over stool inside it."""
    _, ey, ex = grid.extent
    gas_above = rng.uniform(-4.0, 4.0)
    tissue = np.empty(grid.shape)
    for slab, points in grid.slabs():
        z, y, x = points
        outline = (y / (0.47 * ey)) ** 2 + (x / (0.48 * ex)) ** 2
        spine = ((y + 0.36 * ey) / (0.08 * ey)) ** 2 + (x / (0.09 * ex)) ** 2
        ring = np.where(outline < 0.62, _FAT, np.where(outline < 0.82, _MUSCLE, _FAT))
        density = np.where(outline < 1.0, ring, _AIR) + 0.0 * z
        density[np.broadcast_to(spine < 1.0, density.shape)] = _BONE
        distance = lumen[slab]
        density[(distance > 0.0) & (distance <= _WALL_MM)] = _WALL_HU
        inside = distance <= 0.0
        # The patient lies on the back: gas rises to the front.
        gas = np.broadcast_to(y > gas_above, density.shape)
        density[inside & gas] = _GAS_HU
        density[inside & ~gas] = _STOOL_HU
        if polyp is not None:
            density[(polyp.level(points) < 1.0) & inside] = _WALL_HU
        tissue[slab] = density
    return tissue
