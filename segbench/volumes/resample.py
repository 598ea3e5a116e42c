"""Resampling of images and label maps to another grid, one exact linear operator per axis.

Interpolation with a cubic B-spline on the half-pixel grid is a tensor product: along each axis it is *one*
matrix W (n_out x n_in), the evaluation of the spline times the inverse of its prefilter. The matrix is built
once in float64, is a band of about 30 entries per row (the prefilter decays by 0.268 per voxel), and is
applied as small dense products. That gives the numbers of
`skimage.transform.resize(order=3, mode="edge", anti_aliasing=False)`, which the field's reference framework
uses, at about a tenth of its CPU time.

Arrays are (z, y, x), images optionally (c, z, y, x). Shapes: c channels, n voxels along an axis.

Source: scikit-image `transform.resize` (grid and clipping); MIC-DKFZ/nnUNet
`preprocessing/resampling/default_resampling.py` (order 3, the separate axis); MIC-DKFZ/batchgenerators
`augmentations/utils.py: resize_segmentation` (labels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

from segbench.volumes.linear import AxisTaps, majority_labels

__all__ = [
    "ANISOTROPY_THRESHOLD",
    "axis_operator",
    "low_resolution_axis",
    "nearest_index",
    "resample_image",
    "resample_labels",
]

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

#: An axis whose spacing is more than this many times the finest is treated by itself (nnU-Net's value).
ANISOTROPY_THRESHOLD = 3.0

# Entries below this share of their row's largest are dropped: they carry less than float32 can hold.
_BAND_TOLERANCE = 1e-7
# Output rows per product: wide enough for BLAS, narrow enough that the band stays a band.
_BLOCK_ROWS = 64


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows `start:stop` of an operator as a dense piece that needs only the inputs `first:last`."""

    start: int
    stop: int
    first: int
    last: int
    weights: Float32  # (stop - start, last - first)


def axis_operator(n_in: int, n_out: int, order: int) -> Float64:
    """Matrix (n_out, n_in), float64, that resamples one axis on the half-pixel grid.

    Row i holds the weights of the input voxels for output voxel i, whose centre is at
    `x_in = (i + 0.5) * n_in / n_out - 0.5`; beyond the border the edge voxel continues. Rows sum to 1.

    Args:
        n_in: voxels before, at least 1.
        n_out: voxels after, at least 1.
        order: 0 nearest (halves go up), 1 linear, 3 interpolating cubic B-spline; 2, 4 and 5 exist too.

    Returns:
        A read-only array; the same object for equal arguments.

    Raises:
        ValueError: a size below 1 or an order outside 0..5.

    Source: `scipy.ndimage.zoom(mode="nearest", grid_mode=True)`, the call inside `skimage.transform.resize`.
    """
    if n_in < 1 or n_out < 1:
        raise ValueError(f"sizes must be at least 1, not {n_in} -> {n_out}")
    if not 0 <= order <= 5:
        raise ValueError(f"spline order must be 0 to 5, not {order}")
    return _axis_operator(int(n_in), int(n_out), int(order))


@lru_cache(maxsize=64)
def _axis_operator(n_in: int, n_out: int, order: int) -> Float64:
    operator: Float64
    if n_in == n_out:
        operator = np.eye(n_in)
    elif order == 0:
        operator = np.zeros((n_out, n_in))
        operator[np.arange(n_out), nearest_index(n_in, n_out)] = 1.0
    elif order == 1:
        taps = AxisTaps.linear(n_in, n_out)
        operator = np.zeros((n_out, n_in))
        rows = np.arange(n_out)
        np.add.at(operator, (rows, taps.lower), 1.0 - taps.weight)
        np.add.at(operator, (rows, taps.upper), taps.weight)
    else:
        # A column of the identity is one input voxel; resampled, it is that voxel's share in each output.
        zoom = cast("Callable[..., Float64]", ndimage.zoom)
        operator = zoom(np.eye(n_in), (n_out / n_in, 1.0), order=order, mode="nearest", grid_mode=True)
    operator.setflags(write=False)
    return operator


def nearest_index(n_in: int, n_out: int) -> npt.NDArray[np.int64]:
    """Input index (n_out,) nearest to each output voxel's centre; halves go up, clipped to the axis."""
    # (2 i + 1) n_in / (2 n_out) in whole numbers: floating point would decide the halves by its rounding.
    return np.minimum((2 * np.arange(n_out, dtype=np.int64) + 1) * n_in // (2 * n_out), n_in - 1)


def low_resolution_axis(spacing_in: Sequence[float], spacing_out: Sequence[float]) -> int | None:
    """Axis (0..2) to be interpolated by nearest neighbour because its voxels are thick, or None.

    An axis qualifies when the largest spacing exceeds three times the smallest, in the source or else in the
    target (the first that holds decides), and exactly one axis has the largest spacing.

    Args:
        spacing_in: (3,) millimetres before, order z y x.
        spacing_out: (3,) millimetres after.

    Source: MIC-DKFZ/nnUNet preprocessing/resampling/default_resampling.py, ANISO_THRESHOLD.
    """
    for spacing in (spacing_in, spacing_out):
        values = np.asarray(spacing, dtype=np.float64)
        if values.max() / values.min() > ANISOTROPY_THRESHOLD:
            thick = np.flatnonzero(values == values.max())
            return int(thick[0]) if thick.size == 1 else None
    return None


def resample_image(
    image: Array, shape: Sequence[int], *, order: int = 3, nearest_axis: int | None = None
) -> Float32:
    """Image on the grid of `shape`, float32, with the leading channel axis if there was one.

    Equal to the float64 reference (module docstring) within 1e-5 of the image's range; an axis whose size
    does not change is left alone bit for bit. The result is clipped to each channel's minimum and maximum, as
    the reference does; with `nearest_axis` to each slice's.

    Args:
        image: (z, y, x) or (c, z, y, x), any real type.
        shape: (3,) voxels of the result, order z y x.
        order: spline order of the interpolated axes.
        nearest_axis: axis (0..2) that takes the nearest slice instead (see `low_resolution_axis`).

    Returns:
        A new float32 array.

    Raises:
        ValueError: wrong number of axes, a size below 1, or an axis outside 0..2.
    """
    target = _checked_shape(shape, nearest_axis)
    if image.ndim not in (3, 4):
        raise ValueError(f"image must be (z, y, x) or (c, z, y, x), not {image.ndim}-dimensional")
    result = np.empty((*image.shape[:-3], *target), dtype=np.float32)
    channels_in = image if image.ndim == 4 else image[None]
    channels_out = result if image.ndim == 4 else result[None]
    # Channel by channel: the peak stays at one channel's intermediate, whatever their number.
    for source, destination in zip(channels_in, channels_out, strict=True):
        destination[...] = _resample_channel(source, target, order, nearest_axis)
    return result


def resample_labels(labels: Array, shape: Sequence[int], *, nearest_axis: int | None = None) -> Array:
    """Label map on the grid of `shape`, same type.

    Each label's indicator is interpolated linearly; a voxel becomes that label where the value is at least
    0.5 (1e-9 below still counts: exact halves must not hang on rounding), and a later, larger label
    overwrites an earlier one. Where no label reaches a half the voxel is 0.

    Args:
        labels: (z, y, x), integers (or bool).
        shape: (3,) voxels of the result.
        nearest_axis: axis (0..2) along which whole slices are picked instead of interpolated.

    Raises:
        ValueError: not three axes, not integers, or an axis outside 0..2.

    Source: MIC-DKFZ/batchgenerators `resize_segmentation`, evaluated exactly and only where labels meet.
    """
    target = _checked_shape(shape, nearest_axis)
    if labels.ndim != 3:
        raise ValueError(f"labels must be (z, y, x), not {labels.ndim}-dimensional")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    if labels.shape == target:
        return labels.copy()
    taps = tuple(
        AxisTaps.single(nearest_index(n_in, n_out)) if axis == nearest_axis else AxisTaps.linear(n_in, n_out)
        for axis, (n_in, n_out) in enumerate(zip(labels.shape, target, strict=True))
    )
    return majority_labels(labels, taps)


def _checked_shape(shape: Sequence[int], nearest_axis: int | None) -> tuple[int, int, int]:
    target = tuple(int(n) for n in shape)
    if len(target) != 3 or min(target) < 1:
        raise ValueError(f"shape must be three sizes of at least 1, not {tuple(shape)}")
    if nearest_axis is not None and nearest_axis not in (0, 1, 2):
        raise ValueError(f"nearest_axis must be 0, 1 or 2, not {nearest_axis}")
    return (target[0], target[1], target[2])


def _resample_channel(
    source: Array, target: tuple[int, int, int], order: int, nearest_axis: int | None
) -> Array:
    """One channel on its new grid, float32 (the source itself, cast, when nothing changes)."""
    if source.shape == target:
        return source.astype(np.float32, copy=False)
    smooth = [axis for axis in range(3) if axis != nearest_axis and source.shape[axis] != target[axis]]
    if nearest_axis is not None:
        # The reference interpolates every slice and then picks; picking first saves the slices nobody asks
        # for and repeats none of the work (a slice wanted twice is picked afterwards).
        picked = nearest_index(source.shape[nearest_axis], target[nearest_axis])
        wanted, repeat = np.unique(picked, return_inverse=True)
        source = np.take(source, wanted, axis=nearest_axis)
    else:
        repeat = None
    values = np.ascontiguousarray(source, dtype=np.float32)
    if smooth:
        reduced = (nearest_axis,) if nearest_axis is not None else ()
        over = tuple(axis for axis in range(3) if axis not in reduced)
        low, high = values.min(axis=over, keepdims=True), values.max(axis=over, keepdims=True)
        offset = _offset(low, high)
        if offset != 0.0:
            values = values - offset
        # The axis that shrinks most goes first: every later product is then smaller.
        for axis in sorted(smooth, key=lambda axis: target[axis] / source.shape[axis]):
            values = _apply(values, axis, target[axis], order)
        if offset != 0.0:
            values += offset
        np.clip(values, low, high, out=values)
    if repeat is not None and nearest_axis is not None and repeat.size != values.shape[nearest_axis]:
        values = np.take(values, repeat, axis=nearest_axis)
    return values


def _offset(low: Float32, high: Float32) -> np.float32:
    """Value to subtract first so that float32 products keep their digits, 0 when the data need none.

    A scan that lives at 1e6 +- 1 would lose its range to the rounding of the products; weights sum to 1, so a
    constant may be taken out and put back.
    """
    smallest, largest = float(low.min()), float(high.max())
    middle = 0.5 * (smallest + largest)
    return np.float32(middle) if abs(middle) > 2.0 * (largest - smallest) else np.float32(0.0)


@lru_cache(maxsize=64)
def _blocks(n_in: int, n_out: int, order: int) -> tuple[_Block, ...]:
    """The operator cut into dense float32 pieces of `_BLOCK_ROWS` rows and the columns they need."""
    operator = axis_operator(n_in, n_out, order).copy()
    magnitude = np.abs(operator)
    operator[magnitude < _BAND_TOLERANCE * magnitude.max(axis=1, keepdims=True)] = 0.0
    # What was dropped goes to the largest entry, so that a constant stays that constant.
    operator[np.arange(n_out), magnitude.argmax(axis=1)] += 1.0 - operator.sum(axis=1)
    blocks: list[_Block] = []
    for start in range(0, n_out, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, n_out)
        used = np.flatnonzero(operator[start:stop].any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        weights = np.ascontiguousarray(operator[start:stop, first:last], dtype=np.float32)
        blocks.append(_Block(start, stop, first, last, weights))
    return tuple(blocks)


def _apply(values: Float32, axis: int, n_out: int, order: int) -> Float32:
    """Resample one axis of (z, y, x) float32, C-contiguous; always as plain 2-D products for BLAS."""
    n_z, n_y, n_x = values.shape
    blocks = _blocks(values.shape[axis], n_out, order)
    if axis == 0:
        result = np.empty((n_out, n_y, n_x), dtype=np.float32)
        flat_in, flat_out = values.reshape(n_z, -1), result.reshape(n_out, -1)
        for block in blocks:
            rows, columns = slice(block.start, block.stop), slice(block.first, block.last)
            np.matmul(block.weights, flat_in[columns], out=flat_out[rows])
    elif axis == 1:
        result = np.empty((n_z, n_out, n_x), dtype=np.float32)
        for plane_in, plane_out in zip(values, result, strict=True):
            for block in blocks:
                rows, columns = slice(block.start, block.stop), slice(block.first, block.last)
                np.matmul(block.weights, plane_in[columns], out=plane_out[rows])
    else:
        result = np.empty((n_z, n_y, n_out), dtype=np.float32)
        for plane_in, plane_out in zip(values, result, strict=True):
            for block in blocks:
                np.matmul(
                    plane_in[:, block.first : block.last],
                    block.weights.T,
                    out=plane_out[:, block.start : block.stop],
                )
    return result
