"""Image and labels through one affine map of voxels, in a single pass: the CPU's half of augmentation.

Offsets are taken from the centres of source and result: the output voxel at offset o takes what lies at
`matrix @ o`. Images are interpolated linearly, with 0 beyond the source. A label is the class with the
largest interpolated indicator; where two are equal it is the nearest voxel's if that is one of them, else the
lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.volumes.linear_kernels import jit

__all__ = ["affine_image", "affine_labels"]

Array = npt.NDArray[Any]
Matrix = Sequence[Sequence[float]]

# Indicators closer than this are equal: positions are rounded, exact halves must not hang on it.
_TIE = 1e-4


def affine_image(
    image: npt.NDArray[np.float32], matrix: Matrix, size: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Image (c, *size) float32 on the mapped grid.

    Args:
        image: (c, z, y, x) float32, C-contiguous.
        matrix: (3, 3) from offsets in the result to offsets in the source, voxels z y x.
        size: (3,) voxels of the result.
    """
    result = np.empty((image.shape[0], *(int(n) for n in size)), dtype=np.float32)
    _image(image, *_map(matrix, image.shape[1:], size), result)
    return result


def affine_labels(labels: Array, matrix: Matrix, size: Sequence[int], *, outside: int = 0) -> Array:
    """Labels (*size) on the mapped grid, same type.

    Args:
        labels: (z, y, x) integers, C-contiguous.
        matrix: As for `affine_image`.
        size: (3,) voxels of the result.
        outside: Label of everything beyond the source.
    """
    result = np.empty(tuple(int(n) for n in size), dtype=labels.dtype)
    _labels(labels, *_map(matrix, labels.shape, size), outside, _TIE, result)
    return result


def _map(matrix: Matrix, source: Sequence[int], size: Sequence[int]) -> tuple[Array, Array]:
    """The matrix, and the source position of the first voxel of the result."""
    turn = np.asarray(matrix, dtype=np.float64)
    first = -(np.asarray(size, dtype=np.float64) - 1) / 2
    return turn, turn @ first + (np.asarray(source, dtype=np.float64) - 1) / 2


@jit
def _image(image: Array, turn: Array, first: Array, result: Array) -> None:
    n_c, n_z, n_y, n_x = image.shape
    one = np.float32(1.0)
    for z in range(result.shape[1]):
        for y in range(result.shape[2]):
            at_z = first[0] + turn[0, 0] * z + turn[0, 1] * y
            at_y = first[1] + turn[1, 0] * z + turn[1, 1] * y
            at_x = first[2] + turn[2, 0] * z + turn[2, 1] * y
            for x in range(result.shape[3]):
                pz, py, px = at_z + turn[0, 2] * x, at_y + turn[1, 2] * x, at_x + turn[2, 2] * x
                if pz <= -1 or py <= -1 or px <= -1 or pz >= n_z or py >= n_y or px >= n_x:
                    for c in range(n_c):
                        result[c, z, y, x] = 0
                    continue
                # Positions are above -1: adding 1 makes the cut towards zero a floor.
                z0, y0, x0 = int(pz + 1) - 1, int(py + 1) - 1, int(px + 1) - 1
                tz, ty, tx = np.float32(pz - z0), np.float32(py - y0), np.float32(px - x0)
                if z0 >= 0 and y0 >= 0 and x0 >= 0 and z0 + 1 < n_z and y0 + 1 < n_y and x0 + 1 < n_x:
                    for c in range(n_c):
                        near0, near1 = image[c, z0, y0], image[c, z0, y0 + 1]
                        far0, far1 = image[c, z0 + 1, y0], image[c, z0 + 1, y0 + 1]
                        a = near0[x0] * (one - tx) + near0[x0 + 1] * tx
                        b = near1[x0] * (one - tx) + near1[x0 + 1] * tx
                        d = far0[x0] * (one - tx) + far0[x0 + 1] * tx
                        e = far1[x0] * (one - tx) + far1[x0 + 1] * tx
                        near, far = a * (one - ty) + b * ty, d * (one - ty) + e * ty
                        result[c, z, y, x] = near * (one - tz) + far * tz
                else:
                    for c in range(n_c):
                        total = np.float32(0.0)
                        for iz in range(2):
                            for iy in range(2):
                                for ix in range(2):
                                    jz, jy, jx = z0 + iz, y0 + iy, x0 + ix
                                    if 0 <= jz < n_z and 0 <= jy < n_y and 0 <= jx < n_x:
                                        w = tz if iz else one - tz
                                        w *= ty if iy else one - ty
                                        w *= tx if ix else one - tx
                                        total += w * image[c, jz, jy, jx]
                        result[c, z, y, x] = total


@jit
def _labels(labels: Array, turn: Array, first: Array, outside: int, tie: float, result: Array) -> None:
    n_z, n_y, n_x = labels.shape
    met = np.empty(8, dtype=np.int64)
    share = np.empty(8, dtype=np.float64)
    for z in range(result.shape[0]):
        for y in range(result.shape[1]):
            at_z = first[0] + turn[0, 0] * z + turn[0, 1] * y
            at_y = first[1] + turn[1, 0] * z + turn[1, 1] * y
            at_x = first[2] + turn[2, 0] * z + turn[2, 1] * y
            for x in range(result.shape[2]):
                pz, py, px = at_z + turn[0, 2] * x, at_y + turn[1, 2] * x, at_x + turn[2, 2] * x
                if pz <= -1 or py <= -1 or px <= -1 or pz >= n_z or py >= n_y or px >= n_x:
                    result[z, y, x] = outside
                    continue
                z0, y0, x0 = int(pz + 1) - 1, int(py + 1) - 1, int(px + 1) - 1
                if z0 >= 0 and y0 >= 0 and x0 >= 0 and z0 + 1 < n_z and y0 + 1 < n_y and x0 + 1 < n_x:
                    near0, near1 = labels[z0, y0], labels[z0, y0 + 1]
                    far0, far1 = labels[z0 + 1, y0], labels[z0 + 1, y0 + 1]
                    c0, c1, c2, c3 = near0[x0], near0[x0 + 1], near1[x0], near1[x0 + 1]
                    c4, c5, c6, c7 = far0[x0], far0[x0 + 1], far1[x0], far1[x0 + 1]
                    low = min(min(min(c0, c1), min(c2, c3)), min(min(c4, c5), min(c6, c7)))
                    high = max(max(max(c0, c1), max(c2, c3)), max(max(c4, c5), max(c6, c7)))
                    if low == high:
                        result[z, y, x] = low
                        continue
                    h0, h1, h2, h3 = c0 == high, c1 == high, c2 == high, c3 == high
                    h4, h5, h6, h7 = c4 == high, c5 == high, c6 == high, c7 == high
                    highs = int(h0) + int(h1) + int(h2) + int(h3) + int(h4) + int(h5) + int(h6) + int(h7)
                    lows = int(c0 == low) + int(c1 == low) + int(c2 == low) + int(c3 == low)
                    lows += int(c4 == low) + int(c5 == low) + int(c6 == low) + int(c7 == low)
                    if lows + highs == 8:
                        # Two labels, as almost everywhere: one indicator tells.
                        tz, ty, tx = pz - z0, py - y0, px - x0
                        near = (h0 * (1 - tx) + h1 * tx) * (1 - ty) + (h2 * (1 - tx) + h3 * tx) * ty
                        far = (h4 * (1 - tx) + h5 * tx) * (1 - ty) + (h6 * (1 - tx) + h7 * tx) * ty
                        share_high = near * (1 - tz) + far * tz
                        if abs(share_high - 0.5) > tie:
                            result[z, y, x] = high if share_high > 0.5 else low
                            continue
                tz, ty, tx = pz - z0, py - y0, px - x0
                count, nearest, most = 0, 0, -1.0
                for i in range(8):
                    jz, jy, jx = z0 + (i >> 2), y0 + (i >> 1 & 1), x0 + (i & 1)
                    inside = 0 <= jz < n_z and 0 <= jy < n_y and 0 <= jx < n_x
                    label = labels[jz, jy, jx] if inside else outside
                    weight = tz if i >> 2 else 1 - tz
                    weight *= ty if i >> 1 & 1 else 1 - ty
                    weight *= tx if i & 1 else 1 - tx
                    if weight > most:
                        nearest, most = label, weight
                    at = 0
                    while at < count and met[at] != label:
                        at += 1
                    if at == count:
                        met[at], share[at] = label, 0.0
                        count += 1
                    share[at] += weight
                best, chosen, of_nearest = -1.0, 0, 0.0
                for i in range(count):
                    if met[i] == nearest:
                        of_nearest = share[i]
                    if share[i] > best + tie or (share[i] > best - tie and met[i] < chosen):
                        chosen = met[i]
                    if share[i] > best:
                        best = share[i]
                result[z, y, x] = nearest if of_nearest > best - tie else chosen
