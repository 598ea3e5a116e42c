"""Phantoms in the layout of MSD: two abutting parts of one body and a distractor beside it, two channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segbench.data.phantoms.plan import Case, Made
from segbench.data.phantoms.scanner import mr
from segbench.data.phantoms.space import Deformation, Ellipsoid, Points

ANTERIOR, POSTERIOR = 1, 2
# Intensities (T1w, T2w): the parts differ a little, the distractor looks like the anterior part.
_BACKGROUND, _ANTERIOR, _POSTERIOR = (180.0, 260.0), (300.0, 200.0), (270.0, 220.0)
_WIDTH_MM = 48.0


def make(case: Case) -> Made:
    """One case: two ellipsoids that overlap and are cut apart at y = 0; apart from each other in case 0."""
    grid, rng = case.grid, case.generator()
    scale = grid.extent[2] / _WIDTH_MM
    if case.calibration:
        deformation = None
        front, back = _ellipsoid((0, 11, 0), (9, 10, 8), scale), _ellipsoid((0, -12, 0), (8, 11, 8), scale)
        analytic = {ANTERIOR: front.volume_ml, POSTERIOR: back.volume_ml}
    else:
        deformation = Deformation.draw(rng, grid, scale=scale)
        front = _ellipsoid((0, 8, 0), (8, 12, 7), scale).varied(rng, scale=0.5 * scale)
        back = _ellipsoid((0, -9, 0), (7, 13, 7), scale).varied(rng, scale=0.5 * scale)
        analytic = {}
    distractor = _ellipsoid((4, 4, 17), (6, 6, 4), scale)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    tissues = {channel: np.zeros(grid.shape) for channel in case.layout.channels}
    for slab, points in grid.slabs():
        undone = points if deformation is None else deformation.undo(points)
        labels[slab] = painted = _paint(undone, front, back, cut=not case.calibration)
        looks_alike = (painted == ANTERIOR) | (distractor.level(undone) < 1.0)
        for index, tissue in enumerate(tissues.values()):
            tissue[slab] = np.where(looks_alike, _ANTERIOR[index], _BACKGROUND[index])
            tissue[slab][painted == POSTERIOR] = _POSTERIOR[index]
    return mr(case, rng, tissues, np.ones(grid.shape, dtype=bool)), labels, analytic


def _ellipsoid(
    centre: tuple[float, float, float], radii: tuple[float, float, float], scale: float
) -> Ellipsoid:
    return Ellipsoid(scale * np.array(centre), scale * np.array(radii))


def _paint(points: Points, front: Ellipsoid, back: Ellipsoid, *, cut: bool) -> NDArray[np.uint8]:
    in_front, behind = front.level(points) < 1.0, back.level(points) < 1.0
    if cut:
        # Both parts end at the plane y = 0 of the plan, so they abut along a face.
        body, ahead = in_front | behind, points[1] >= 0
        in_front, behind = body & ahead, body & ~ahead
    painted = np.where(in_front, ANTERIOR, 0)
    return np.where(behind, POSTERIOR, painted).astype(np.uint8)
