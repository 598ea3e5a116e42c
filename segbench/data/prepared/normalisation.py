"""Intensity normalisation per channel, with the reference framework's meaning, in place and in float32.

Statistics accumulate in float64; the arithmetic goes plane by plane so that each plane is read from
memory once.

Source: MIC-DKFZ/nnUNet preprocessing/normalization/default_normalization_schemes.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segbench.core.errors import SegbenchError
from segbench.data.random import rng

__all__ = [
    "FOREGROUND_VOXELS",
    "NORMALISATIONS",
    "channel_statistics",
    "foreground_intensities",
    "nonzero_mask",
    "normalise",
]

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

NORMALISATIONS = ("ct", "zscore", "zscore-nonzero", "rescale01", "none")

#: Voxels per case that enter the statistics of `ct`.
FOREGROUND_VOXELS = 10_000

_TINY = 1e-8


def normalise(
    channel: Array,
    scheme: str,
    *,
    statistics: Mapping[str, float] | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
) -> Float32:
    """One channel, normalised, as a new float32 array (z, y, x).

    Args:
        channel: (z, y, x), any real type; not changed.
        scheme: `ct` | `zscore` | `zscore-nonzero` | `rescale01` | `none`.
        statistics: for `ct`: p005, p995, mean, std of the training split's foreground.
        mask: for `zscore-nonzero`: voxels that count (see `nonzero_mask`); outside becomes exactly 0.

    Raises:
        ValueError: an unknown scheme, or what it needs is absent.
    """
    if scheme == "none":
        return np.array(channel, dtype=np.float32, order="C")
    if scheme == "ct":
        if statistics is None:
            raise ValueError("normalisation ct needs the statistics p005, p995, mean, std of its channel")
        low, high = np.float32(statistics["p005"]), np.float32(statistics["p995"])
        return _shift_and_divide(channel, statistics["mean"], statistics["std"], clip=(low, high))
    if scheme == "zscore":
        mean, std = _moments(channel, None)
        return _shift_and_divide(channel, mean, std)
    if scheme == "zscore-nonzero":
        if mask is None:
            raise ValueError("normalisation zscore-nonzero needs a mask")
        mean, std = _moments(channel, mask)
        values = _shift_and_divide(channel, mean, std)
        np.multiply(values, mask, out=values)
        # -0.0 where a negative value was masked: outside is exactly +0.
        values += np.float32(0.0)
        return values
    if scheme == "rescale01":
        low_value, high_value = np.float32(channel.min()), np.float32(channel.max())
        return _shift_and_divide(channel, float(low_value), float(high_value - low_value))
    raise ValueError(f"unknown normalisation {scheme!r}; known: {', '.join(NORMALISATIONS)}")


def nonzero_mask(images: Sequence[Array]) -> npt.NDArray[np.bool_]:
    """Voxels (z, y, x) where any channel is not 0, with enclosed holes filled.

    A hole is a zero region that no path of face neighbours joins to the border; found by labelling the zeros
    once, which gives `scipy.ndimage.binary_fill_holes`' answer without its iterated dilation.
    """
    mask = np.asarray(images[0] != 0)
    for image in images[1:]:
        mask |= image != 0
    zeros, count = cast("tuple[npt.NDArray[np.int32], int]", ndimage.label(~mask))
    if count:
        outside = np.zeros(count + 1, dtype=np.bool_)
        for axis in range(3):
            for end in (0, -1):
                outside[np.unique(np.take(zeros, end, axis=axis))] = True
        outside[0] = True  # label 0 is the mask itself
        if not outside.all():
            mask |= ~outside[zeros]
    return mask


def foreground_intensities(images: Sequence[Array], labels: Array, *, case: str) -> Float32:
    """Intensities (n, c) of at most 10 000 foreground voxels (label > 0) of one case.

    Which voxels is a function of the case's id alone: no global generator is touched.
    """
    where = np.flatnonzero(labels > 0)
    if where.size > FOREGROUND_VOXELS:
        where = np.sort(rng(0, "foreground", case).choice(where, FOREGROUND_VOXELS, replace=False))
    return np.stack([image.reshape(-1)[where].astype(np.float32) for image in images], axis=-1)


def channel_statistics(samples: Sequence[Float32]) -> list[dict[str, float]]:
    """Statistics per channel of pooled foreground samples: {p005, p995, mean, std}.

    Args:
        samples: one (n, c) array per training case.

    Raises:
        SegbenchError: SB318 where no case has a foreground voxel.
    """
    pooled = np.concatenate(list(samples)).astype(np.float64)
    if pooled.shape[0] == 0:
        raise SegbenchError(
            "SB318",
            "no training case has a foreground voxel: the statistics that CT is normalised with do not exist",
            expected="label values above 0 in the training split",
            found=f"{len(samples)} cases of background",
        )
    statistics: list[dict[str, float]] = []
    for values in pooled.T:
        low, high = np.percentile(values, (0.5, 99.5))
        statistics.append(
            {
                "p005": float(low),
                "p995": float(high),
                "mean": float(values.mean()),
                "std": float(values.std()),
            }
        )
    return statistics


def _moments(channel: Array, mask: npt.NDArray[np.bool_] | None) -> tuple[float, float]:
    """Mean and standard deviation in float64, two passes, plane by plane."""
    planes = channel if mask is None else [plane[inside] for plane, inside in zip(channel, mask, strict=True)]
    count = sum(plane.size for plane in planes)
    if count == 0:
        return 0.0, 1.0
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in planes) / count
    squares = 0.0
    for plane in planes:
        difference = plane.astype(np.float64).ravel()
        difference -= mean
        squares += float(np.dot(difference, difference))
    return mean, float(np.sqrt(squares / count))


def _shift_and_divide(
    channel: Array, mean: float, std: float, *, clip: tuple[np.float32, np.float32] | None = None
) -> Float32:
    """(clip(v) - mean) / max(std, 1e-8) in float32, one plane in the processor's cache at a time."""
    shift, scale = np.float32(mean), np.float32(max(std, _TINY))
    result = np.empty(channel.shape, dtype=np.float32)
    for plane_in, plane_out in zip(channel, result, strict=True):
        if clip is None:
            plane_out[...] = plane_in
        else:
            np.clip(plane_in, *clip, out=plane_out, casting="unsafe", dtype=np.float32)
        plane_out -= shift
        plane_out /= scale
    return result
