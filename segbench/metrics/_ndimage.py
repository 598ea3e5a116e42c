# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportArgumentType=false, reportMissingTypeStubs=false
"""The few functions of scipy.ndimage that the tree and lesion scores need, with types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.metrics.boxes import Box

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]

FACES: Mask = np.asarray(ndimage.generate_binary_structure(3, 1), dtype=np.bool_)
"""6-connectivity."""
EDGES: Mask = np.asarray(ndimage.generate_binary_structure(3, 2), dtype=np.bool_)
"""18-connectivity."""
CORNERS: Mask = np.asarray(ndimage.generate_binary_structure(3, 3), dtype=np.bool_)
"""26-connectivity."""


def label(mask: Mask, structure: Mask) -> tuple[Numbers, int]:
    """Components numbered 1.. in raster order of their first voxel, and how many."""
    found: Any = ndimage.label(mask, structure)
    return np.asarray(found[0], dtype=np.int32), int(found[1])


def boxes_of(numbers: Numbers) -> list[Box | None]:
    """The box of every number from 1 on."""
    return list(ndimage.find_objects(numbers))


def dilate(mask: Mask, structure: Mask, steps: int) -> Mask:
    """The mask grown by some steps; none leaves it as it is (scipy's 0 means for ever)."""
    if steps == 0:
        return mask
    return np.asarray(ndimage.binary_dilation(mask, structure, iterations=steps), dtype=np.bool_)
