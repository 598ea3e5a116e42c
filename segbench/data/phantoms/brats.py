"""Glioma phantoms: an ellipsoid brain with cortex, ventricles and nested lesions, in four contrasts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segbench.data.phantoms.plan import Case, Made
from segbench.data.phantoms.space import Array, Blob, Deformation, Ellipsoid, Grid, Points, Triple

NCR, ED, ET = 1, 2, 3
NAMES = {NCR: "necrotic core (NCR)", ED: "oedema (ED/SNFH)", ET: "enhancing tumour (ET)"}
CHANNELS = ("t2w", "t2f", "t1n", "t1c")
# Intensities per channel. Oedema is bright in t2w and t2f, enhancing tumour in t1c alone; necrosis dark.
_TISSUES: dict[str, tuple[float, float, float, float]] = {
    "white": (180, 180, 300, 300),
    "grey": (240, 230, 240, 240),
    "fluid": (420, 70, 90, 90),
    "ncr": (330, 250, 160, 110),
    "ed": (380, 400, 215, 220),
    "et": (250, 260, 215, 470),
}
_SCALE_MM = 96.0
_TC_SHARE, _NCR_SHARE = 0.64, 0.38


def make(case: Case) -> Made:
    """One case; its second visit keeps the anatomy and grows the lesions by 15 %."""
    grid = case.grid
    scale = min(grid.extent[1:]) / _SCALE_MM
    anatomy = case.generator(of_patient=True)
    brain = Ellipsoid((0.0, 0.0, 0.0), (36.0 * scale, 40.0 * scale, 34.0 * scale))
    if case.calibration:
        deformation, lesions = Deformation(), []
        whole = Ellipsoid((4.0 * scale, 6.0 * scale, -8.0 * scale), (19 * scale, 18 * scale, 17 * scale))
        core = whole, whole.scaled(_TC_SHARE), whole.scaled(_NCR_SHARE)
        analytic = {
            ED: core[0].volume_ml - core[1].volume_ml,
            ET: core[1].volume_ml - core[2].volume_ml,
            NCR: core[2].volume_ml,
        }
    else:
        deformation = Deformation.draw(anatomy, grid, scale=scale)
        factor = anatomy.uniform(0.82, 1.18)
        brain = Ellipsoid(brain.centre, (36 * scale * factor, 40 * scale * factor, 34 * scale * factor))
        lesions = _lesions(anatomy, case, grid, brain, scale)
        core, analytic = (), {}
    labels, mask, tissues = _paint(case, grid, deformation, brain, lesions, core, scale)
    images = case.scanner.mr(case.generator(), tissues, grid, mask)
    return Made(images, labels, grid.spacing, NAMES, analytic)


def _lesions(
    rng: np.random.Generator, case: Case, grid: Grid, brain: Ellipsoid, scale: float
) -> list[tuple[Blob, bool]]:
    """Lesions as (body, has a core); the first is the largest, later ones may be satellites of oedema."""
    voxel = grid.spacing[0] * grid.spacing[1] * grid.spacing[2]
    growth = 1.15 if case.follow_up else 1.0
    if "tiny_lesion" in case.traps:
        radius = (30 * voxel * 3 / (4 * math.pi)) ** (1 / 3)
        return [(Blob.draw(rng, _inside(rng, brain, 0.5), radius, roughness=0.05), True)]
    count = int(rng.integers(1, 5))
    lesions = [(Blob.draw(rng, _inside(rng, brain, 0.5), rng.uniform(13, 21) * scale * growth), True)]
    for _ in range(count - 1):
        if rng.uniform() < 0.5:
            wanted = math.exp(rng.uniform(math.log(30), math.log(150))) * voxel
            radius = (wanted * 3 / (4 * math.pi)) ** (1 / 3)
            lesions.append((Blob.draw(rng, _inside(rng, brain, 0.7), radius * growth, roughness=0.1), False))
        else:
            radius = rng.uniform(7, 11) * scale * growth
            lesions.append((Blob.draw(rng, _inside(rng, brain, 0.65), radius), True))
    return lesions


def _inside(rng: np.random.Generator, brain: Ellipsoid, share: float) -> Triple:
    direction = rng.standard_normal(3)
    direction /= math.sqrt(float((direction * direction).sum()))
    reach = share * rng.uniform(0.2, 1.0)
    z, y, x = (reach * d * r for d, r in zip(direction, brain.radii, strict=True))
    return z, y, x


def _paint(
    case: Case,
    grid: Grid,
    deformation: Deformation,
    brain: Ellipsoid,
    lesions: list[tuple[Blob, bool]],
    core: tuple[Ellipsoid, ...],
    scale: float,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], dict[str, Array]]:
    labels = np.zeros(grid.shape, dtype=np.uint8)
    mask = np.zeros(grid.shape, dtype=bool)
    tissues = {channel: np.zeros(grid.shape) for channel in CHANNELS}
    for slab in grid.slabs():
        points = deformation.undo(grid.points(slab))
        level = brain.level(points)
        inside = level < 1.0
        painted = _label(case, points, lesions, core, inside)
        fluid = _ventricles(points, scale) & inside
        for index, channel in enumerate(CHANNELS):
            tissue = np.where(level > 0.78, _TISSUES["grey"][index], _TISSUES["white"][index])
            tissue[fluid] = _TISSUES["fluid"][index]
            for value, name in ((NCR, "ncr"), (ED, "ed"), (ET, "et")):
                tissue[painted == value] = _TISSUES[name][index]
            tissue[~inside] = 0.0
            tissues[channel][slab] = tissue
        labels[slab], mask[slab] = painted, inside
    return labels, mask, tissues


def _ventricles(points: Points, scale: float) -> NDArray[np.bool_]:
    left = Ellipsoid((4 * scale, -2 * scale, -6 * scale), (7 * scale, 15 * scale, 4 * scale))
    right = Ellipsoid((4 * scale, -2 * scale, 6 * scale), left.radii)
    return (left.level(points) < 1.0) | (right.level(points) < 1.0)


def _label(
    case: Case,
    points: Points,
    lesions: list[tuple[Blob, bool]],
    core: tuple[Ellipsoid, ...],
    inside: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Necrosis within enhancing tumour within oedema, also where lesions meet: the inner class wins."""
    whole = np.zeros(inside.shape, dtype=bool)
    tumour, necrosis = whole.copy(), whole.copy()
    for body, share in zip(core, (whole, tumour, necrosis), strict=False):
        share |= body.level(points) < 1.0
    for blob, has_core in lesions:
        level = blob.level(points)
        whole |= level < 1.0
        if has_core:
            tumour |= level < _TC_SHARE
            necrosis |= level < _NCR_SHARE
    painted = np.zeros(inside.shape, dtype=np.uint8)
    painted[whole & inside] = ED
    painted[tumour & inside] = NCR if "no_enhancing_tumour" in case.traps else ET
    painted[necrosis & inside] = NCR
    return painted
