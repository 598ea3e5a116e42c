"""Abdominal CT phantoms: a body with seven ellipsoid organs and two vessels that differ by a few HU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segbench.data.phantoms.plan import Case, Made
from segbench.data.phantoms.space import Capsule, Deformation, Ellipsoid, Points, Triple, triple

NAMES = {
    1: "aorta", 2: "gall_bladder", 3: "kidney_left", 4: "kidney_right", 5: "liver",
    6: "pancreas", 7: "postcava", 8: "spleen", 9: "stomach",
}  # fmt: skip
# Neighbours in density differ by 2 to 15 HU under noise of 16 HU; soft tissue between them has 30 HU.
_HU = {1: 70.0, 2: 15.0, 3: 48.0, 4: 50.0, 5: 58.0, 6: 40.0, 7: 63.0, 8: 54.0, 9: 25.0}
_AIR, _FAT, _SOFT, _BONE = -1000.0, -90.0, 30.0, 260.0
NOISE_HU = 16.0
_PLAN_MM = (120.0, 96.0, 96.0)

# Centre and radii in the plan (z up, y to the front, x to the patient's right), millimetres.
_ORGANS: dict[int, tuple[Triple, Triple]] = {
    5: ((25, 14, 22), (26, 24, 19)),
    9: ((20, 14, -20), (18, 13, 12)),
    8: ((22, -16, -30), (16, 11, 9)),
    3: ((-14, -20, -24), (18, 9, 9)),
    4: ((-18, -20, 24), (18, 9, 9)),
    6: ((-7, 8, -4), (6, 7, 18)),
    2: ((-14, 16, 24), (9, 6, 6)),
}
_VESSELS: dict[int, tuple[Triple, Triple, float]] = {
    # Oblique, so that no row of voxel centres lies along their surface.
    1: ((-48, -21, -8), (48, -19, -4), 6.0),
    7: ((-48, -15, 10), (48, -16, 7), 6.0),
}
_CUT_SHARE = 0.45
"""The cut field of view keeps the upper part: kidneys and gall bladder are then absent."""


def make(case: Case) -> Made:
    """One case; the traps cut the field of view or change the combined map, never the masks."""
    rng, plan = case.generator(), case.grid
    scale = triple(have / planned for have, planned in zip(plan.extent, _PLAN_MM, strict=True))
    organs, vessels = _anatomy(case, rng, scale)
    deformation = Deformation() if case.calibration else Deformation.draw(rng, plan, scale=min(scale))
    labels = np.zeros(plan.shape, dtype=np.uint8)
    tissue = np.empty(plan.shape)
    for slab in plan.slabs():
        points = deformation.undo(plan.points(slab))
        painted = _paint(points, organs, vessels)
        density = _body(plan.points(slab), points, scale)
        for value, hu in _HU.items():
            density[painted == value] = hu
        labels[slab], tissue[slab] = painted, density
    if "cut_field_of_view" in case.traps:
        first = round(plan.shape[0] * (1 - _CUT_SHARE))
        labels, tissue = labels[first:].copy(), tissue[first:].copy()
    image = case.scanner.ct(rng, tissue, noise_hu=NOISE_HU)
    analytic = (
        {value: body.volume_ml for value, body in (organs | vessels).items()} if case.calibration else {}
    )
    combined = _other_combined(labels) if "combined_differs" in case.traps else None
    return Made({"CT": image}, labels, plan.spacing, NAMES, analytic, combined)


def _anatomy(
    case: Case, rng: np.random.Generator, scale: Triple
) -> tuple[dict[int, Ellipsoid], dict[int, Capsule]]:
    def scaled(point: Triple) -> Triple:
        return triple(p * s for p, s in zip(point, scale, strict=True))

    organs = {value: Ellipsoid(scaled(centre), scaled(radii)) for value, (centre, radii) in _ORGANS.items()}
    width = min(scale[1:])
    vessels = {
        value: Capsule(scaled(start), scaled(end), radius * width)
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
    painted: NDArray[np.uint8] | None = None
    for value, organ in organs.items():
        inside = organ.level(points) < 1.0
        painted = np.zeros(inside.shape, dtype=np.uint8) if painted is None else painted
        painted[inside] = value
    assert painted is not None
    for value, vessel in vessels.items():
        painted[vessel.distance(points) < 0.0] = value
    return painted


def _body(grid_points: Points, plan_points: Points, scale: Triple) -> NDArray[np.float64]:
    """Air, a layer of fat, soft tissue and a spine; the outline does not move with the organs."""
    z, y, x = grid_points
    outline = (y / (46 * scale[1])) ** 2 + (x / (46 * scale[2])) ** 2
    spine_y, spine_x = plan_points[1] + 36 * scale[1], plan_points[2]
    spine = (spine_y / (8 * scale[1])) ** 2 + (spine_x / (9 * scale[2])) ** 2
    density = np.where(outline < 0.9, _SOFT, np.where(outline < 1.0, _FAT, _AIR))
    density = density + 0.0 * z
    density[np.broadcast_to(spine < 1.0, density.shape)] = _BONE
    return density


def _other_combined(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A combined map from which the lowest part of the liver is missing."""
    combined = labels.copy()
    planes = np.flatnonzero((labels == 5).any(axis=(1, 2)))
    if planes.size:
        lower = combined[: planes[0] + max(1, planes.size // 4)]
        lower[lower == 5] = 0
    return combined
