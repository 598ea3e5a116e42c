"""Abdominal CT phantoms: a body with seven ellipsoid organs and two vessels that differ by a few HU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segbench.data.phantoms.plan import Case, Made
from segbench.data.phantoms.scanner import ct
from segbench.data.phantoms.space import Capsule, Deformation, Ellipsoid, Points, Vector

# By label. Neighbours in density differ by 2 to 15 HU under noise of 16 HU; soft tissue between has 30 HU.
_HU = {1: 70.0, 2: 15.0, 3: 48.0, 4: 50.0, 5: 58.0, 6: 40.0, 7: 63.0, 8: 54.0, 9: 25.0}
_AIR, _FAT, _SOFT, _BONE = -1000.0, -90.0, 30.0, 260.0
NOISE_HU = 16.0
_PLAN_MM = (120.0, 96.0, 96.0)

# Centre and radii in the plan (z up, y to the front, x to the patient's right), millimetres.
_ORGANS = {
    5: ((25, 14, 22), (26, 24, 19)),
    9: ((20, 14, -20), (18, 13, 12)),
    8: ((22, -16, -30), (16, 11, 9)),
    3: ((-14, -20, -24), (18, 9, 9)),
    4: ((-18, -20, 24), (18, 9, 9)),
    6: ((-7, 8, -4), (6, 7, 18)),
    2: ((-14, 16, 24), (9, 6, 6)),
}
_VESSELS = {
    # Oblique, so that no row of voxel centres lies along their surface.
    1: ((-48, -21, -8), (48, -19, -4), 6.0),
    7: ((-48, -15, 10), (48, -16, 7), 6.0),
}
_CUT_SHARE = 0.45
"""The cut field of view keeps the upper part: kidneys and gall bladder are then absent."""


def make(case: Case) -> Made:
    """One case; a trap cuts the field of view."""
    rng, grid = case.generator(), case.grid
    scale = grid.extent / _PLAN_MM
    organs, vessels = _anatomy(case, rng, scale)
    deformation = None if case.calibration else Deformation.draw(rng, grid, scale=min(scale))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    tissue = np.empty(grid.shape)
    for slab, points in grid.slabs():
        undone = points if deformation is None else deformation.undo(points)
        painted = _paint(undone, organs, vessels)
        density = _body(points, undone, scale)
        for value, hu in _HU.items():
            density[painted == value] = hu
        labels[slab], tissue[slab] = painted, density
    if "cut_field_of_view" in case.traps:
        first = round(grid.shape[0] * (1 - _CUT_SHARE))
        labels, tissue = labels[first:].copy(), tissue[first:].copy()
    image = ct(case, rng, tissue, noise_hu=NOISE_HU)
    analytic = {value: body.volume_ml for value, body in (organs | vessels).items()}
    return {"CT": image}, labels, analytic if case.calibration else {}


def _anatomy(
    case: Case, rng: np.random.Generator, scale: Vector
) -> tuple[dict[int, Ellipsoid], dict[int, Capsule]]:
    organs = {value: Ellipsoid(centre * scale, radii * scale) for value, (centre, radii) in _ORGANS.items()}
    width = min(scale[1:])
    vessels = {
        value: Capsule(start * scale, end * scale, radius * width)
        for value, (start, end, radius) in _VESSELS.items()
    }
    if not case.calibration:
        organs = {value: organ.varied(rng, scale=min(scale)) for value, organ in organs.items()}
        vessels = {
            value: Capsule(vessel.start, vessel.end, vessel.radius * rng.uniform(0.82, 1.18))
            for value, vessel in vessels.items()
        }
    return organs, vessels


def _paint(points: Points, organs: dict[int, Ellipsoid], vessels: dict[int, Capsule]) -> NDArray[np.uint8]:
    painted = np.zeros(np.broadcast_shapes(*(p.shape for p in points)), dtype=np.uint8)
    for value, organ in organs.items():
        painted[organ.level(points) < 1.0] = value
    for value, vessel in vessels.items():
        painted[vessel.distance(points) < 0.0] = value
    return painted


def _body(grid_points: Points, plan_points: Points, scale: Vector) -> NDArray[np.float64]:
    """Air, a layer of fat, soft tissue and a spine; the outline does not move with the organs."""
    z, y, x = grid_points
    outline = (y / (46 * scale[1])) ** 2 + (x / (46 * scale[2])) ** 2
    spine_y, spine_x = plan_points[1] + 36 * scale[1], plan_points[2]
    spine = (spine_y / (8 * scale[1])) ** 2 + (spine_x / (9 * scale[2])) ** 2
    density = np.where(outline < 0.9, _SOFT, np.where(outline < 1.0, _FAT, _AIR))
    density = density + 0.0 * z
    density[np.broadcast_to(spine < 1.0, density.shape)] = _BONE
    return density
