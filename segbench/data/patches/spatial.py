"""Rotation and scaling of one crop: image and labels at the same places, one resampling for both.

Positions are offsets from the centre in voxels: the output voxel at offset o takes its value from `matrix @
o` of the source. Labels are the class with the largest linearly interpolated indicator, evaluated only where
classes meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from segbench.volumes.affine import affine_image, affine_labels

__all__ = ["centre_crop", "cubic_on_device", "transform_image", "transform_labels"]

Matrix = Sequence[Sequence[float]]

# An indicator within this of another's counts as equal; the nearest voxel then decides.
_TIE = 1e-4


def centre_crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """View of the middle `size` voxels of the last three axes."""
    starts = [(have - want) // 2 for have, want in zip(x.shape[-3:], size, strict=True)]
    cut = [slice(start, start + want) for start, want in zip(starts, size, strict=True)]
    return x[(..., *cut)]


def transform_image(x_CDHW: Tensor, matrix: Matrix, size: Sequence[int], *, order: int = 1) -> Tensor:
    """Image (C, *size) on the transformed grid, linear (order 1) or cubic (3); outside the crop 0."""
    if order == 1 and x_CDHW.device.type == "cpu":
        # One pass without a grid of positions: a fifth of grid_sample's time, the same numbers.
        return torch.from_numpy(affine_image(x_CDHW.contiguous().numpy(), matrix, size))
    if order == 1:
        grid = _grid(matrix, x_CDHW.shape[1:], size, x_CDHW.device)
        return F.grid_sample(
            x_CDHW[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False
        )[0]
    # scipy's loops are quicker on a processor; on an accelerator its 64 taps are 64 gathers of everything.
    if x_CDHW.device.type == "cpu":
        return _cubic(x_CDHW, matrix, size)
    return cubic_on_device(x_CDHW, matrix, size)


def transform_labels(x_DHW: Tensor, matrix: Matrix, size: Sequence[int], *, outside: int = 0) -> Tensor:
    """Labels (*size) on the transformed grid, the type of the input.

    The class with the largest interpolated indicator; where two are equal, that of the nearest voxel if it is
    one of them, else the lower.
    """
    if x_DHW.device.type == "cpu":
        return torch.from_numpy(affine_labels(x_DHW.contiguous().numpy(), matrix, size, outside=outside))
    return _labels_on_device(x_DHW, matrix, size, outside)


def _labels_on_device(x_DHW: Tensor, matrix: Matrix, size: Sequence[int], outside: int) -> Tensor:
    """`transform_labels` in torch operations."""
    # One voxel of `outside` all around stands for everything beyond.
    padded = F.pad(x_DHW.to(torch.int32)[None, None], (1,) * 6, value=outside)[0, 0]
    place = _positions(matrix, x_DHW.shape, size, x_DHW.device)
    limits = _numbers([n + 1 for n in x_DHW.shape], x_DHW.device)
    place = torch.minimum((place + 1.0).clamp_min_(0.0), limits)  # voxel -1 of the source is voxel 0 here
    nearest = _take(padded, torch.round(place).long())
    base = torch.minimum(place.floor(), limits - 1.0).clamp_min_(0.0)
    mixed = torch.nonzero(_take(_mixed(padded), base.long()))[:, 0]
    result = nearest.clone()
    if mixed.numel():
        weight = place[mixed] - base[mixed]
        result[mixed] = _majority(padded, base[mixed].long(), weight, nearest[mixed])
    return result.reshape(tuple(size)).to(x_DHW.dtype)


def _majority(labels: Tensor, base_N3: Tensor, weight_N3: Tensor, nearest_N: Tensor) -> Tensor:
    """Class with the largest sum of corner weights at each of N places."""
    corners, shares = [], []
    for corner in range(8):
        bits = _numbers([corner >> 2 & 1, corner >> 1 & 1, corner & 1], base_N3.device)
        corners.append(_take(labels, base_N3 + bits.long()))
        shares.append(torch.where(bits.bool(), weight_N3, 1.0 - weight_N3).prod(dim=1))
    corner_N8, share_N8 = torch.stack(corners, dim=1), torch.stack(shares, dim=1)
    best = torch.zeros_like(share_N8[:, 0])
    chosen = torch.full_like(nearest_N, torch.iinfo(nearest_N.dtype).max)
    of_nearest = torch.zeros_like(best)
    for corner in range(8):
        label = corner_N8[:, corner]
        total = (share_N8 * (corner_N8 == label[:, None])).sum(dim=1)
        better = (total > best + _TIE) | ((total > best - _TIE) & (label < chosen))
        chosen = torch.where(better, label, chosen)
        best = torch.maximum(best, total)
        of_nearest = torch.where(label == nearest_N, total, of_nearest)
    return torch.where(of_nearest > best - _TIE, nearest_N, chosen)


def _mixed(labels_DHW: Tensor) -> Tensor:
    """Whether the 2 x 2 x 2 cell beginning at each voxel holds more than one label; last planes: False."""
    low = high = labels_DHW
    for axis in range(3):
        n = labels_DHW.shape[axis]
        after_low, after_high = low.narrow(axis, 1, n - 1), high.narrow(axis, 1, n - 1)
        low = torch.minimum(low.narrow(axis, 0, n - 1), after_low)
        high = torch.maximum(high.narrow(axis, 0, n - 1), after_high)
    return F.pad((low != high)[None, None].float(), (0, 1) * 3)[0, 0] > 0


def _take(x_DHW: Tensor, index_N3: Tensor) -> Tensor:
    _, h, w = x_DHW.shape
    return x_DHW.reshape(-1)[(index_N3[:, 0] * h + index_N3[:, 1]) * w + index_N3[:, 2]]


def _numbers(values: Sequence[Any], device: torch.device) -> Tensor:
    """A few numbers on a device, float32: made there from Python they would make this thread wait for it."""
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)


def _positions(matrix: Matrix, source: Sequence[int], size: Sequence[int], device: torch.device) -> Tensor:
    """Source positions (N, 3) in voxels, z y x, of every output voxel; 0 is the centre of the first voxel."""
    axes = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in size]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    turn, centre = _numbers(matrix, device), _numbers([(n - 1) / 2 for n in source], device)
    return offsets @ turn.T + centre


def _grid(matrix: Matrix, source: Sequence[int], size: Sequence[int], device: torch.device) -> Tensor:
    """The same positions as `grid_sample` wants them: (*size, 3) in [-1, 1], x y z."""
    place = _positions(matrix, source, size, device)
    scale = _numbers([2.0 / n for n in source], device)
    return ((place + 0.5) * scale - 1.0).flip(-1).reshape(*size, 3)


def cubic_on_device(x_CDHW: Tensor, matrix: Matrix, size: Sequence[int]) -> Tensor:
    """Order 3 by tensor operations: scipy's cubic B-spline, mirrored at the border for its taps, 0 outside.

    Source: scipy.ndimage `affine_transform(order=3, mode="constant")`, whose numbers these are.
    """
    shape = x_CDHW.shape[1:]
    coefficients = x_CDHW.double()  # a float32 product may be rounded to TF32
    for axis, n in enumerate(shape, start=1):
        coefficients = torch.movedim(
            torch.movedim(coefficients, axis, -1) @ _prefilter(n, x_CDHW.device).T, -1, axis
        )
    place = _positions(matrix, shape, size, x_CDHW.device)
    inside = torch.ones(place.shape[0], dtype=torch.bool, device=place.device)
    taps: list[list[tuple[Tensor, Tensor]]] = []
    for axis, n in enumerate(shape):
        at = place[:, axis]
        inside &= (at >= 0) & (at <= n - 1)
        first = at.floor()
        taps.append(
            [(_mirrored(first.long() + offset, n), _bspline(at - first - offset)) for offset in (-1, 0, 1, 2)]
        )
    flat = coefficients.to(x_CDHW.dtype).reshape(x_CDHW.shape[0], -1)
    total = torch.zeros((x_CDHW.shape[0], place.shape[0]), dtype=x_CDHW.dtype, device=x_CDHW.device)
    for z, weight_z in taps[0]:
        for y, weight_y in taps[1]:
            row, weight_zy = (z * shape[1] + y) * shape[2], weight_z * weight_y
            for x, weight_x in taps[2]:
                total += flat[:, row + x] * (weight_zy * weight_x)
    return (total * inside).reshape(x_CDHW.shape[0], *size)


def _prefilter(n: int, device: torch.device) -> Tensor:
    """Matrix (n, n) from samples to B-spline coefficients, mirrored at both ends; float64."""
    collocation = torch.eye(n, dtype=torch.float64) * (4 / 6)
    for i in range(n):
        for neighbour in (i - 1, i + 1):
            collocation[i, int(_mirrored(torch.tensor(neighbour), n))] += 1 / 6
    return torch.linalg.inv(collocation).to(device)


def _mirrored(index: Tensor, n: int) -> Tensor:
    """Indices beyond the border as their mirror image about the outermost voxel."""
    if n == 1:
        return torch.zeros_like(index)
    period = 2 * (n - 1)
    folded = index.remainder(period)
    return torch.minimum(folded, period - folded)


def _bspline(distance: Tensor) -> Tensor:
    """The cubic B-spline at a distance of less than 2."""
    d = distance.abs()
    near = 2 / 3 - d * d * (2 - d) / 2
    return torch.where(d < 1, near, (2 - d).clamp_min(0) ** 3 / 6)


def _cubic(x_CDHW: Tensor, matrix: Matrix, size: Sequence[int]) -> Tensor:
    """Order 3 with scipy's spline, on the CPU: the published recipes of the first batchgenerators."""
    from typing import cast

    import numpy as np
    from scipy import ndimage

    turn = np.asarray(matrix, dtype=np.float64)
    source = np.asarray(x_CDHW.shape[1:], dtype=np.float64)
    offset = (source - 1) / 2 - turn @ ((np.asarray(size, dtype=np.float64) - 1) / 2)
    values = x_CDHW.detach().cpu().numpy()
    turned = [
        ndimage.affine_transform(
            channel, turn, offset=cast("Any", offset), output_shape=tuple(size), order=3, mode="constant"
        )
        for channel in values
    ]
    return torch.from_numpy(np.stack(turned)).to(x_CDHW.device, x_CDHW.dtype)
