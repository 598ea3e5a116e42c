"""Compiled loops of `linear.py`: one pass over the output grid, arithmetic only where labels differ.

Legend: `l?`, `u?`, `w?` are the lower voxel, the upper voxel and the upper's weight along z, y, x.
Every function also runs uncompiled (SEGBENCH_NO_NUMBA=1): slowly, with the same results.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

if os.environ.get("SEGBENCH_NO_NUMBA", "") not in ("", "0"):

    def jit(function: Callable[..., Any]) -> Callable[..., Any]:
        """Leave the function as it is: numba was switched off."""
        return function

else:
    import numba

    jit = numba.njit(cache=True, nogil=True)


@jit
def majority(
    source: Array,
    lz: Array, uz: Array, wz: Array,
    ly: Array, uy: Array, wy: Array,
    lx: Array, ux: Array, wx: Array,
    threshold: float,
    result: Array,
) -> None:  # fmt: skip
    """Fill `result` with the largest label whose interpolated indicator reaches `threshold`, else 0."""
    corner = np.zeros(8, dtype=np.int64)
    weight = np.zeros(8, dtype=np.float64)
    for z in range(result.shape[0]):
        z0, z1, tz = lz[z], uz[z], wz[z]
        for y in range(result.shape[1]):
            y0, y1, ty = ly[y], uy[y], wy[y]
            row00, row01 = source[z0, y0], source[z0, y1]
            row10, row11 = source[z1, y0], source[z1, y1]
            for x in range(result.shape[2]):
                x0, x1 = lx[x], ux[x]
                first = row00[x0]
                if (
                    row00[x1] == first
                    and row01[x0] == first
                    and row01[x1] == first
                    and row10[x0] == first
                    and row10[x1] == first
                    and row11[x0] == first
                    and row11[x1] == first
                ):
                    result[z, y, x] = first
                    continue
                tx = wx[x]
                corner[0], corner[1], corner[2], corner[3] = row00[x0], row00[x1], row01[x0], row01[x1]
                corner[4], corner[5], corner[6], corner[7] = row10[x0], row10[x1], row11[x0], row11[x1]
                weight[0] = (1.0 - tz) * (1.0 - ty) * (1.0 - tx)
                weight[1] = (1.0 - tz) * (1.0 - ty) * tx
                weight[2] = (1.0 - tz) * ty * (1.0 - tx)
                weight[3] = (1.0 - tz) * ty * tx
                weight[4] = tz * (1.0 - ty) * (1.0 - tx)
                weight[5] = tz * (1.0 - ty) * tx
                weight[6] = tz * ty * (1.0 - tx)
                weight[7] = tz * ty * tx
                best, found = 0, False
                for i in range(8):
                    label = corner[i]
                    if found and label <= best:
                        continue
                    total = 0.0
                    for j in range(8):
                        if corner[j] == label:
                            total += weight[j]
                    if total >= threshold:
                        best, found = label, True
                result[z, y, x] = best
