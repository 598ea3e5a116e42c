"""Volumes at another size: linear interpolation, and Haar wavelets with their inverse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["joined", "split", "upsampled"]


def upsampled(x_BCDHW: Tensor, size: Sequence[int], *, corners: bool = False) -> Tensor:
    """The volume at another size by trilinear interpolation.

    torch's own has no deterministic backward on CUDA; where one is asked for, the same is made of products
    with one matrix per axis.

    Args:
        x_BCDHW: (B, C, D, H, W).
        size: (D, H, W) of the result.
        corners: Whether the centres of the outermost voxels stay where they are, rather than the edges.
    """
    if not (x_BCDHW.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return functional.interpolate(x_BCDHW, size=tuple(size), mode="trilinear", align_corners=corners)
    return by_matrices(x_BCDHW, size, corners=corners)


def by_matrices(x_BCDHW: Tensor, size: Sequence[int], *, corners: bool) -> Tensor:
    """As `upsampled`: along each axis every new voxel is a weighted sum of old ones."""
    y = x_BCDHW
    for axis, length in zip((2, 3, 4), size, strict=True):
        if length != y.shape[axis]:
            unit = torch.eye(y.shape[axis], dtype=y.dtype, device=y.device)[None]
            weights = functional.interpolate(unit, size=length, mode="linear", align_corners=corners)[0]
            y = (y.movedim(axis, -1) @ weights).movedim(-1, axis)
    return y


def split(x_BCDHW: Tensor) -> tuple[Tensor, Tensor]:
    """The orthonormal Haar transform: (B, C, D, H, W) -> its low part (B, C, D/2, H/2, W/2) and its seven
    details (B, C, 7, D/2, H/2, W/2).
    """
    y = x_BCDHW[:, :, None]
    for axis in (3, 4, 5):
        even, odd = y.unflatten(axis, (-1, 2)).unbind(axis + 1)
        y = torch.cat((even + odd, even - odd), dim=2) * 0.5**0.5
    return y[:, :, 0], y[:, :, 1:]


def joined(low_BCDHW: Tensor, details: Tensor) -> Tensor:
    """The inverse of `split`."""
    y = torch.cat((low_BCDHW[:, :, None], details), dim=2)
    for axis in (5, 4, 3):
        total, change = y.chunk(2, dim=2)
        y = torch.stack((total + change, total - change), dim=axis + 1).flatten(axis, axis + 1) * 0.5**0.5
    return y[:, :, 0]
