"""Linear interpolation of decisions: which label wins at each voxel of a finer or coarser grid.

The tasks here share one observation. An interpolated value is a convex combination of the 2 x 2 x 2
surrounding source voxels, so where all eight carry the same label that label is the answer, and only the
shell in which labels meet (about 1 % of a scan) needs arithmetic. `majority_labels` resamples label maps,
`decide_labels` takes a network's logits to another grid.

The loops are compiled with numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.volumes import linear_kernels as kernels

__all__ = ["AxisTaps", "decide_labels", "majority_labels"]

Array = npt.NDArray[Any]

# An indicator this far below a half still counts as a half (rounding of exact ties).
_TIE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class AxisTaps:
    """The two input voxels of each output voxel along one axis, and the weight of the upper one.

    Attributes:
        lower: (n_out,) int64.
        upper: (n_out,) int64, lower or lower + 1.
        weight: (n_out,) float64 in [0, 1); the lower voxel weighs 1 - weight.
    """

    lower: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]

    @classmethod
    def linear(cls, n_in: int, n_out: int) -> AxisTaps:
        """Taps of linear interpolation on the half-pixel grid, edges continued; weights exact to float64."""
        # (2 i + 1) n_in - n_out over 2 n_out, in whole numbers, so that an exact half is an exact half.
        numerator = (2 * np.arange(n_out, dtype=np.int64) + 1) * n_in - n_out
        numerator = np.clip(numerator, 0, 2 * n_out * (n_in - 1))
        lower, rest = np.divmod(numerator, 2 * n_out)
        upper = np.minimum(lower + 1, n_in - 1)
        return cls(lower, upper, rest / (2.0 * n_out))

    @classmethod
    def linear_float32(cls, n_in: int, n_out: int) -> AxisTaps:
        """Taps with the weights that `torch.nn.functional.interpolate` forms in float32.

        PyTorch computes the source position as one fused multiply-add in float32; its rounding (up to 1e-5
        of a voxel at 200 voxels) decides near-ties, so an export that promises equality must round alike.

        Source: pytorch aten/src/ATen/native/UpSample.h, `area_pixel_compute_source_index`.
        """
        scale = np.float32(n_in) / np.float32(n_out)
        position = (np.float64(scale) * (np.arange(n_out) + 0.5) - 0.5).astype(np.float32)
        position = np.clip(position, np.float32(0.0), np.float32(n_in - 1))
        lower = position.astype(np.int64)
        weight = (position - lower.astype(np.float32)).astype(np.float64)
        # A voxel that lies on a source voxel has one corner, not two of which one weighs nothing.
        return cls(lower, np.where(weight > 0, np.minimum(lower + 1, n_in - 1), lower), weight)

    @classmethod
    def single(cls, index: npt.NDArray[np.int64]) -> AxisTaps:
        """Taps that pick one voxel each, with no interpolation."""
        return cls(index, index, np.zeros(index.size))


def majority_labels(labels: Array, taps: tuple[AxisTaps, ...]) -> Array:
    """Label map on the grid of the taps: the largest label whose interpolated indicator is at least a half.

    Args:
        labels: (z, y, x) integers or bool.
        taps: one per axis, z y x.

    Returns:
        Array of the taps' sizes, same type; 0 where no label reaches a half.
    """
    source = np.ascontiguousarray(labels)
    if source.dtype == np.bool_:
        return majority_labels(source.view(np.uint8), taps).view(np.bool_)
    result = np.empty([axis.lower.size for axis in taps], dtype=source.dtype)
    arguments = [array for axis in taps for array in (axis.lower, axis.upper, axis.weight)]
    kernels.majority(source, *arguments, 0.5 - _TIE, result)
    return result


def decide_labels(
    logits: npt.NDArray[np.float32], taps: tuple[AxisTaps, ...], table: Array, result: Array, *, by_sign: bool
) -> int:
    """Fill `result` with the winning label of linearly interpolated logits, without a dense tensor.

    Args:
        logits: (K, z, y, x) float32.
        taps: one per axis of the result, indices into `logits`.
        table: label of each class; by sign, of "none" and then of each region.
        result: (z, y, x) of the taps' sizes, filled.
        by_sign: later positive logits over earlier ones, in place of the largest.

    Returns:
        How many voxels needed interpolation.
    """
    values = np.ascontiguousarray(logits, dtype=np.float32)
    codes = np.empty(values.shape[1:], dtype=np.uint8 if values.shape[0] < 256 else np.uint16)
    kernels.winners(values, by_sign, codes)
    arguments = [array for axis in taps for array in (axis.lower, axis.upper, axis.weight.astype(np.float32))]
    return int(kernels.decide(values, codes, by_sign, *arguments, table, result))
