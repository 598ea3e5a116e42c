"""Phantoms in the layout of MSD: two abutting parts of one body and a distractor beside it, two channels."""

from __future__ import annotations

import numpy as np

from segbench.data.phantoms.plan import Case, Made
from segbench.data.phantoms.space import Deformation, Ellipsoid, Points, triple

ANTERIOR, POSTERIOR = 1, 2
NAMES = {ANTERIOR: "anterior", POSTERIOR: "posterior"}
CHANNELS = ("T1w", "T2w")
# Intensities (T1w, T2w): the parts differ a little, the distractor looks like the anterior part.
_BACKGROUND, _ANTERIOR, _POSTERIOR = (180.0, 260.0), (300.0, 200.0), (270.0, 220.0)
_WIDTH_MM = 48.0


def make(case: Case) -> Made:
    """One case: two ellipsoids that overlap and are cut apart at y = 0; apart from each other in case 0."""
    grid, rng = case.grid, case.generator()
    scale = grid.extent[2] / _WIDTH_MM
    if case.calibration:
        deformation = Deformation()
        front, back = _ellipsoid((0, 11, 0), (9, 10, 8), scale), _ellipsoid((0, -12, 0), (8, 11, 8), scale)
        analytic = {ANTERIOR: front.volume_ml, POSTERIOR: back.volume_ml}
    else:
        deformation = Deformation.draw(rng, grid, scale=scale)
        front = _ellipsoid((0, 8, 0), (8, 12, 7), scale).varied(rng, scale=0.5 * scale)
        back = _ellipsoid((0, -9, 0), (7, 13, 7), scale).varied(rng, scale=0.5 * scale)
        analytic = {}
    distractor = _ellipsoid((4, 4, 17), (6, 6, 4), scale)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    tissues = {channel: np.full(grid.shape, _BACKGROUND[i]) for i, channel in enumerate(CHANNELS)}
    for slab in grid.slabs():
        points = deformation.undo(grid.points(slab))
        painted = _paint(points, front, back, cut=not case.calibration)
        beside = (distractor.level(points) < 1.0) & (painted == 0)
        for index, channel in enumerate(CHANNELS):
            tissue = tissues[channel][slab]
            tissue[painted == ANTERIOR] = _ANTERIOR[index]
            tissue[painted == POSTERIOR] = _POSTERIOR[index]
            tissue[beside] = _ANTERIOR[index]
        labels[slab] = painted
    everywhere = np.ones(grid.shape, dtype=bool)
    images = case.scanner.mr(rng, tissues, grid, everywhere)
    return Made(images, labels, grid.spacing, NAMES, analytic)


def _ellipsoid(
    centre: tuple[float, float, float], radii: tuple[float, float, float], scale: float
) -> Ellipsoid:
    return Ellipsoid(triple(scale * c for c in centre), triple(scale * r for r in radii))


def _paint(points: Points, front: Ellipsoid, back: Ellipsoid, *, cut: bool) -> np.ndarray:
    in_front, behind = front.level(points) < 1.0, back.level(points) < 1.0
    painted = np.zeros(in_front.shape, dtype=np.uint8)
    if cut:
        # Both parts end at the plane y = 0 of the plan, so they abut along a face.
        body = in_front | behind
        ahead = np.broadcast_to(points[1] >= 0, body.shape)
        painted[body & ahead] = ANTERIOR
        painted[body & ~ahead] = POSTERIOR
    else:
        painted[in_front] = ANTERIOR
        painted[behind] = POSTERIOR
    return painted
