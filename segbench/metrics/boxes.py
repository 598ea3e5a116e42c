# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportArgumentType=false, reportMissingTypeStubs=false
"""Masks: the box around them, their components, their growth. Most of a volume is background, and nothing
needs to look at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]
Box = tuple[slice, slice, slice]


def box_of(*maps: NDArray[Any], margin: int = 0) -> Box | None:
    """The smallest box that holds every non-zero voxel of 3-D maps, grown by a margin inside the array.

    None when all are zero.
    """
    occupied: Any = None
    for labels in maps:
        rows = labels.any(axis=2)
        columns = labels.any(axis=(0, 1))
        occupied = (rows, columns) if occupied is None else (occupied[0] | rows, occupied[1] | columns)
    rows, columns = occupied
    profiles = (rows.any(axis=1), rows.any(axis=0), columns)
    if not profiles[0].any():
        return None
    spans = [np.flatnonzero(profile) for profile in profiles]
    z, y, x = (
        slice(max(0, int(span[0]) - margin), min(size, int(span[-1]) + 1 + margin))
        for span, size in zip(spans, maps[0].shape, strict=True)
    )
    return z, y, x


def connected(order: int) -> Mask:
    """Neighbours that count as touching: 1 by faces (6), 2 by edges too (18), 3 by corners too (26)."""
    from scipy import ndimage

    return np.asarray(ndimage.generate_binary_structure(3, order), dtype=np.bool_)


def label(mask: Mask, structure: Mask) -> tuple[Numbers, int]:
    """Components numbered 1.. in raster order of their first voxel, and how many."""
    from scipy import ndimage

    found: Any = ndimage.label(mask, structure)
    return np.asarray(found[0], dtype=np.int32), int(found[1])


def boxes_of(numbers: Numbers) -> list[Box | None]:
    """The box of every number from 1 on."""
    from scipy import ndimage

    return list(ndimage.find_objects(numbers))


def dilate(mask: Mask, structure: Mask, steps: int) -> Mask:
    """The mask grown by some steps; none leaves it as it is (scipy's 0 means for ever)."""
    from scipy import ndimage

    if steps == 0:
        return mask
    return np.asarray(ndimage.binary_dilation(mask, structure, iterations=steps), dtype=np.bool_)


def union_of(boxes: Sequence[Box | None]) -> Box:
    """The smallest box that holds several; None is a number that does not occur."""
    known = [box for box in boxes if box is not None]
    z, y, x = (
        slice(min(box[axis].start for box in known), max(box[axis].stop for box in known))
        for axis in range(3)
    )
    return z, y, x
