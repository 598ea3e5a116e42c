"""What an engine hands over for one region: counts and, where both sides are non-empty, the two distance
lists.

`_plain` (numpy + scipy) and `_native` (compiled kernels) produce the same `Measurement`, bit for bit;
everything after this point is shared, so the two engines cannot differ in a formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segbench.metrics.overlap import OVERLAP_FUNCTIONS, Counts
from segbench.metrics.surface import surface_metrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Measurement:
    """Counts and surface distances of one region.

    Attributes:
        counts: voxels of reference, prediction, intersection.
        d1: distances from the prediction's boundary in mm, raster order; None when not asked for or a side is
            empty.
        d2: distances from the reference's boundary in mm, raster order; None likewise.
    """

    counts: Counts
    d1: NDArray[np.float64] | None = None
    d2: NDArray[np.float64] | None = None


def measured_values(
    measurement: Measurement, names: tuple[str, ...], tolerance_mm: float
) -> dict[str, float]:
    """Return every metric of `names` that counts and distances decide, for a region with both sides
    non-empty.
    """
    values = {
        name: OVERLAP_FUNCTIONS[name](measurement.counts) for name in names if name in OVERLAP_FUNCTIONS
    }
    if measurement.d1 is not None and measurement.d2 is not None:
        values.update(surface_metrics(measurement.d1, measurement.d2, names, tolerance_mm))
    return values
