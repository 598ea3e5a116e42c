"""Compiled loops of `linear.py`: one pass over the output grid, arithmetic only where labels differ.

Legend: `l?`, `u?`, `w?` are the lower voxel, the upper voxel and the upper's weight along z, y, x.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called: importing this module costs no numba."""
    compiled: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*arguments: Any) -> Any:
        if not compiled:
            import numba

            compiled.append(numba.njit(cache=True, nogil=True)(function))
        return compiled[0](*arguments)

    return call


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


@jit
def winners(logits: Array, by_sign: bool, codes: Array) -> None:
    """Fill `codes` (z, y, x): the largest class (the lowest of equals), or by sign the last positive one + 1.

    `logits` is (K, z, y, x) float32; by sign, 0 stands for none positive.
    """
    n_k, n_z, n_y, n_x = logits.shape
    best = np.empty(n_x, dtype=np.float32)
    for z in range(n_z):
        for y in range(n_y):
            row = codes[z, y]
            if by_sign:
                row[:] = 0
                for k in range(n_k):
                    values = logits[k, z, y]
                    for x in range(n_x):
                        if values[x] > 0:
                            row[x] = k + 1
            else:
                row[:] = 0
                best[:] = logits[0, z, y]
                for k in range(1, n_k):
                    values = logits[k, z, y]
                    for x in range(n_x):
                        if values[x] > best[x]:
                            best[x] = values[x]
                            row[x] = k


@jit
def decide(
    logits: Array,
    codes: Array,
    by_sign: bool,
    lz: Array, uz: Array, wz: Array,
    ly: Array, uy: Array, wy: Array,
    lx: Array, ux: Array, wx: Array,
    table: Array,
    result: Array,
) -> int:  # fmt: skip
    """Fill `result` (output z, y, x) with `table[code]` of the interpolated logits; voxels that needed
    arithmetic.

    Where the codes of all corners agree that code is the answer. Elsewhere all logits are interpolated in
    float32, first along z, then y, then x.
    """
    n_k, n_x = logits.shape[0], logits.shape[3]
    one = np.float32(1.0)
    merged = np.empty(n_x, dtype=np.int32)
    mixed = np.empty(result.shape[2], dtype=np.int64)
    rows = np.empty((n_k, n_x), dtype=np.float32)
    total = 0
    for z in range(result.shape[0]):
        z0, z1, tz = lz[z], uz[z], wz[z]
        for y in range(result.shape[1]):
            y0, y1, ty = ly[y], uy[y], wy[y]
            row00, row01, row10, row11 = codes[z0, y0], codes[z0, y1], codes[z1, y0], codes[z1, y1]
            for x in range(n_x):
                code = np.int32(row00[x])
                merged[x] = (
                    code if row01[x] == code and row10[x] == code and row11[x] == code else np.int32(-1)
                )
            count = 0
            for x in range(result.shape[2]):
                code = merged[lx[x]]
                if code >= 0 and merged[ux[x]] == code:
                    result[z, y, x] = table[code]
                else:
                    mixed[count] = x
                    count += 1
            if count == 0:
                continue
            total += count
            first, last = lx[mixed[0]], ux[mixed[count - 1]]
            dense = 2 * count >= last - first
            if dense:
                # Most of the stretch is needed: interpolate along z and y once per source voxel.
                for k in range(n_k):
                    a, b, c, d = logits[k, z0, y0], logits[k, z1, y0], logits[k, z0, y1], logits[k, z1, y1]
                    for x in range(first, last + 1):
                        near, far = a[x] * (one - tz) + b[x] * tz, c[x] * (one - tz) + d[x] * tz
                        rows[k, x] = near * (one - ty) + far * ty
            for i in range(count):
                x = mixed[i]
                x0, x1, tx = lx[x], ux[x], wx[x]
                if not dense:
                    for k in range(n_k):
                        for at in (x0, x1):
                            near = logits[k, z0, y0, at] * (one - tz) + logits[k, z1, y0, at] * tz
                            far = logits[k, z0, y1, at] * (one - tz) + logits[k, z1, y1, at] * tz
                            rows[k, at] = near * (one - ty) + far * ty
                code = np.int32(0)
                if by_sign:
                    for k in range(n_k):
                        if rows[k, x0] * (one - tx) + rows[k, x1] * tx > 0:
                            code = np.int32(k + 1)
                else:
                    best = rows[0, x0] * (one - tx) + rows[0, x1] * tx
                    for k in range(1, n_k):
                        value = rows[k, x0] * (one - tx) + rows[k, x1] * tx
                        if value > best:
                            best = value
                            code = np.int32(k)
                result[z, y, x] = table[code]
    return total
