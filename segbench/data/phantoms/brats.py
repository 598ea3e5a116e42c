"""Glioma phantoms: an ellipsoid brain with cortex, ventricles and nested lesions, in four contrasts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from segbench.data.phantoms.plan import Case, Made
from segbench.data.phantoms.scanner import mr
from segbench.data.phantoms.space import Array, Deformation, Ellipsoid, Points, Vector, blob, unit

NCR, ED, ET = 1, 2, 3
Lesion = tuple[Callable[[Points], Array], bool]
"""(level of a body: below 1 inside; whether it has a core)."""
# Intensities per channel. Oedema is bright in t2w and t2f, enhancing tumour in t1c alone; necrosis dark.
_WHITE, _GREY, _FLUID = (180, 180, 300, 300), (240, 230, 240, 240), (420, 70, 90, 90)
_LESION = {NCR: (330, 250, 160, 110), ED: (380, 400, 215, 220), ET: (250, 260, 215, 470)}
_SCALE_MM = 96.0
_TC_SHARE, _NCR_SHARE = 0.64, 0.38


def make(case: Case) -> Made:
    """One case; its second visit keeps the anatomy and grows the lesions by 15 %."""
    grid = case.grid
    scale = min(grid.extent[1:]) / _SCALE_MM
    anatomy = case.generator(of_patient=True)
    brain = Ellipsoid(np.zeros(3), np.array([36.0, 40.0, 34.0]) * scale)
    if case.calibration:
        deformation = None
        whole = Ellipsoid(np.array([4.0, 6.0, -8.0]) * scale, np.array([19.0, 18.0, 17.0]) * scale)
        lesions: list[Lesion] = [(lambda points: np.sqrt(whole.level(points)), True)]
        core, necrosis = (Ellipsoid(whole.centre, share * whole.radii) for share in (_TC_SHARE, _NCR_SHARE))
        analytic = {
            ED: whole.volume_ml - core.volume_ml,
            ET: core.volume_ml - necrosis.volume_ml,
            NCR: necrosis.volume_ml,
        }
    else:
        deformation = Deformation.draw(anatomy, grid, scale=scale)
        brain = Ellipsoid(brain.centre, brain.radii * anatomy.uniform(0.82, 1.18))
        lesions, analytic = _lesions(anatomy, case, brain, scale), {}
    labels = np.zeros(grid.shape, dtype=np.uint8)
    mask = np.zeros(grid.shape, dtype=bool)
    tissues = {channel: np.zeros(grid.shape) for channel in case.layout.channels}
    for slab, points in grid.slabs():
        undone = points if deformation is None else deformation.undo(points)
        level = brain.level(undone)
        mask[slab] = level < 1.0
        labels[slab] = _label(case, undone, lesions, mask[slab])
        fluid = _ventricles(undone, scale)
        for index, tissue in enumerate(tissues.values()):
            tissue[slab] = np.where(level > 0.78, _GREY[index], _WHITE[index])
            tissue[slab][fluid] = _FLUID[index]
            for value, intensities in _LESION.items():
                tissue[slab][labels[slab] == value] = intensities[index]
            tissue[slab][~mask[slab]] = 0.0
    return mr(case, case.generator(), tissues, mask), labels, analytic


def _lesions(rng: np.random.Generator, case: Case, brain: Ellipsoid, scale: float) -> list[Lesion]:
    """The first is the largest, later ones may be satellites of oedema."""
    voxel = math.prod(case.grid.spacing)
    growth = 1.15 if case.follow_up else 1.0
    if "tiny_lesion" in case.traps:
        radius = (30 * voxel * 3 / (4 * math.pi)) ** (1 / 3)
        return [(blob(rng, _inside(rng, brain, 0.5), radius, roughness=0.05), True)]
    count = int(rng.integers(1, 5))
    lesions: list[Lesion] = [
        (blob(rng, _inside(rng, brain, 0.5), rng.uniform(13, 21) * scale * growth), True)
    ]
    for _ in range(count - 1):
        if rng.uniform() < 0.5:
            wanted = math.exp(rng.uniform(math.log(30), math.log(150))) * voxel
            radius = (wanted * 3 / (4 * math.pi)) ** (1 / 3)
            lesions.append((blob(rng, _inside(rng, brain, 0.7), radius * growth, roughness=0.1), False))
        else:
            radius = rng.uniform(7, 11) * scale * growth
            lesions.append((blob(rng, _inside(rng, brain, 0.65), radius), True))
    return lesions


def _inside(rng: np.random.Generator, brain: Ellipsoid, share: float) -> Vector:
    direction = unit(rng.standard_normal(3))
    return share * rng.uniform(0.2, 1.0) * direction * brain.radii


def _ventricles(points: Points, scale: float) -> NDArray[np.bool_]:
    radii = np.array([7.0, 15.0, 4.0]) * scale
    left, right = (Ellipsoid(np.array([4.0, -2.0, x]) * scale, radii) for x in (-6.0, 6.0))
    return (left.level(points) < 1.0) | (right.level(points) < 1.0)


def _label(case: Case, points: Points, lesions: list[Lesion], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Necrosis within enhancing tumour within oedema, also where lesions meet: the inner class wins."""
    whole = np.zeros(inside.shape, dtype=bool)
    tumour, necrosis = whole.copy(), whole.copy()
    for level_of, has_core in lesions:
        level = level_of(points)
        whole |= level < 1.0
        if has_core:
            tumour |= level < _TC_SHARE
            necrosis |= level < _NCR_SHARE
    painted = np.zeros(inside.shape, dtype=np.uint8)
    painted[whole & inside] = ED
    painted[tumour & inside] = NCR if "no_enhancing_tumour" in case.traps else ET
    painted[necrosis & inside] = NCR
    return painted
