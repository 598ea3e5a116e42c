"""How large a difference of HD95 and ASSD a grid alone makes, from bodies whose distances are known.

Boundary distances are measured between voxel centres, so on thick slices two masks of the same body, or of
bodies whose surfaces lie a known way apart, get numbers that are off by a good part of a slice. Pairs of
concentric spheres are drawn on the grid and scored by the engine; the floor of a metric is its mean absolute
error over sizes and places between the voxels. A difference below it says nothing about the surfaces.

Source: Podobnik & Vrtovec 2024, arXiv:2410.02630 (distances on grids against analytic ones); the bodies are
our own.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from segbench.metrics.evaluate import evaluate_case
from segbench.metrics.inputs import check_spacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from segbench.metrics.inputs import Spacing

METRICS = ("hd95", "hd95_max", "assd", "masd")
"""Metrics that have a floor. HD is left out: it is decided by a single voxel."""
RADII_MM = (6.0, 12.0, 20.0)
GAP_MM = 2.0
"""The other sphere's surface lies this far outside, everywhere: HD95 and ASSD are 2 mm."""
PHASES = (0.0, 0.25, 0.5, 0.75)
"""Where between two voxels the centre lies, as a share of the spacing."""
MOST_VOXELS = 60_000
"""Pairs that would take a larger grid are drawn half as large: on a fine grid that changes little."""


def grid_floor(spacing_mm: Sequence[float]) -> Mapping[str, float]:
    """Return the floor of each boundary metric on a grid, in mm.

    Args:
        spacing_mm: voxel size (z, y, x) in mm.

    Raises:
        ValueError: not three finite numbers > 0.
    """
    return dict(_floor(check_spacing(spacing_mm)))


@lru_cache(maxsize=64)
def _floor(spacing: Spacing) -> tuple[tuple[str, float], ...]:
    errors: list[list[float]] = []
    for radius, phase in itertools.product(RADII_MM, PHASES):
        scale = 1.0
        while np.prod([2 * scale * (radius + GAP_MM) / step for step in spacing]) > MOST_VOXELS:
            scale /= 2
        radii = scale * radius, scale * (radius + GAP_MM)
        masks = [_sphere(each, phase, spacing, reach=radii[1]) for each in radii]
        measured = evaluate_case(*masks, spacing_mm=spacing, regions={"body": (1,)}, metrics=METRICS)["body"]
        errors.append([abs(measured[name] - scale * GAP_MM) for name in METRICS])
    return tuple(zip(METRICS, np.mean(errors, axis=0).tolist(), strict=True))


def _sphere(radius: float, phase: float, spacing: Spacing, *, reach: float) -> NDArray[np.bool_]:
    """A ball on a grid that holds balls up to `reach` mm, its centre beside a voxel's by the phase."""
    ends = [int(np.ceil(reach / step)) for step in spacing]
    z, y, x = ((np.arange(-end - 1, end + 2) - phase) * step for end, step in zip(ends, spacing, strict=True))
    return z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius**2
