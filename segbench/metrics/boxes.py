"""The box around a mask: most of a scan is background, and nothing needs to look at it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]


def box_of(mask: NDArray[np.bool_], *, margin: int = 0) -> Box | None:
    """The smallest box that holds a 3-D mask, grown by a margin inside the array; None for an empty mask."""
    parts: list[slice] = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        if occupied.size == 0:
            return None
        first, last = int(occupied[0]), int(occupied[-1])
        parts.append(slice(max(0, first - margin), min(mask.shape[axis], last + 1 + margin)))
    return parts[0], parts[1], parts[2]
