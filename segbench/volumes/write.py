"""Writes a label map on the grid of its scan, under a header in which nothing personal can travel."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from segbench.core.atomic import atomic_write
from segbench.volumes.labels import LabelArray
from segbench.volumes.volume import UNITS_MM, Volume, is_assumed, spacing_of

_GZIP_LEVEL = 6
_BLOCK = 1 << 22
_ORTHONORMAL = 1e-5
UNIT_CODES = {"": 0, "m": 1, "mm": 2, "um": 3}


def write_label_map(path: Path | str, array: NDArray[Any], like: Volume) -> Path:
    """Write labels as NIfTI-1 on the stored grid of `like`, whole or not at all.

    The header is new: shape, type, spacing, sform and qform from the affine of `like` with its codes (1 where
    it has none; the qform only when the axes are at right angles), in the unit of `like`, so that readers
    which look at no unit lay both on each other. Where `like` does not say where it lies, its label map does
    not either, and every reader makes the same guess for both. Every text field is empty and there are no
    extensions. Gzip carries neither time nor name, so equal labels give equal bytes.

    Args:
        path: the target, `.nii.gz` or `.nii`.
        array: (z, y, x), integers (or booleans) from 0 to 65535, in the stored order of `like`.
        like: the scan or reference whose grid this is.

    Returns:
        The target.

    Raises:
        ValueError: the shape differs from `like`, a value does not fit, or the name has another ending.
        SegbenchError: SB505 when the disk takes no more.
    """
    target = Path(path)
    name = target.name.lower()
    if not name.endswith((".nii.gz", ".nii")):
        raise ValueError(f"label maps are written as .nii.gz or .nii, not as {target.name}")
    labels = _as_labels(array, like)
    header = _header(labels, like)

    def plain(stream: BinaryIO) -> None:
        stream.write(header)
        for block in _blocks(labels):
            stream.write(block)

    def packed(stream: BinaryIO) -> None:
        deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
        stream.write(deflate.compress(header))
        for block in _blocks(labels):
            stream.write(deflate.compress(block))
        stream.write(deflate.flush())

    return atomic_write(target, packed if name.endswith(".gz") else plain)


def _as_labels(array: NDArray[Any], like: Volume) -> LabelArray:
    if array.shape != like.shape_zyx:
        raise ValueError(f"labels of shape {array.shape} do not lie on a grid of shape {like.shape_zyx}")
    if max(array.shape) > 32767:
        raise ValueError(f"NIfTI-1 holds at most 32767 voxels along an axis, not {max(array.shape)}")
    if array.dtype.kind not in "iub":
        raise ValueError(f"labels are integers, not {array.dtype.name}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise ValueError(f"labels run from 0 to 65535; found {low if low < 0 else high}")
    return np.ascontiguousarray(array, dtype=np.dtype("<u1" if high <= 255 else "<u2"))


def _header(labels: NDArray[Any], like: Volume) -> bytes:
    """348 bytes of header and 4 that say "no extensions"."""
    z, y, x = labels.shape
    unit = like.unit if like.unit in UNIT_CODES else "mm"
    affine = np.array(like.affine, dtype=np.float64)
    affine[:3] /= UNITS_MM[unit]
    sz, sy, sx = spacing_of(affine)
    rotation = affine[:3, :3] / np.array([sx, sy, sz])
    right_angled = float(np.abs(rotation.T @ rotation - np.eye(3)).max()) <= _ORTHONORMAL
    qfac, quaternion = _quaternion(rotation) if right_angled else (1.0, (0.0, 0.0, 0.0))
    item = labels.dtype.itemsize
    data = bytearray(352)
    struct.pack_into("<i", data, 0, 348)
    data[38] = ord("r")  # "regular", for readers of ANALYZE
    struct.pack_into("<8h", data, 40, 3, x, y, z, 1, 1, 1, 1)
    struct.pack_into("<2h", data, 70, 2 if item == 1 else 512, 8 * item)
    struct.pack_into("<8f", data, 76, qfac, sx, sy, sz, 0.0, 0.0, 0.0, 0.0)
    struct.pack_into("<3f", data, 108, 352.0, 1.0, 0.0)
    data[123] = UNIT_CODES[unit]
    struct.pack_into("<4s", data, 344, b"n+1\0")
    if not like.positioned and is_assumed(like.affine, like.shape_zyx, like.spacing_mm):
        return bytes(data)  # both codes 0
    qform_code = (like.qform_code if like.qform_code > 0 else 1) if right_angled else 0
    struct.pack_into("<2h", data, 252, qform_code, like.sform_code if like.sform_code > 0 else 1)
    struct.pack_into("<6f", data, 256, *quaternion, *(affine[:3, 3] if right_angled else (0.0, 0.0, 0.0)))
    struct.pack_into("<12f", data, 280, *affine[:3].ravel())
    return bytes(data)


def _quaternion(rotation: NDArray[np.float64]) -> tuple[float, tuple[float, float, float]]:
    """Give qfac and (b, c, d) with a >= 0 of a right-angled direction matrix.

    The four squared components come from the diagonal; the largest is taken as the base, the others follow
    from sums and differences across the diagonal, which loses no digits. Source: nifti1.h, method 2.
    """
    qfac = 1.0 if float(np.linalg.det(rotation)) > 0 else -1.0
    r = rotation * np.array([1.0, 1.0, qfac])
    squares = (
        1 + r[0, 0] + r[1, 1] + r[2, 2],
        1 + r[0, 0] - r[1, 1] - r[2, 2],
        1 - r[0, 0] + r[1, 1] - r[2, 2],
        1 - r[0, 0] - r[1, 1] + r[2, 2],
    )
    largest = int(np.argmax(squares))
    base = 2.0 * math.sqrt(squares[largest])  # four times the component itself
    xy, xz, yz = r[1, 0] + r[0, 1], r[0, 2] + r[2, 0], r[2, 1] + r[1, 2]
    wx, wy, wz = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
    rows = ((None, wx, wy, wz), (wx, None, xy, xz), (wy, xy, None, yz), (wz, xz, yz, None))
    parts = [base / 4 if value is None else float(value) / base for value in rows[largest]]
    sign = -1.0 if parts[0] < 0 else 1.0
    return qfac, (sign * parts[1], sign * parts[2], sign * parts[3])


def _blocks(labels: NDArray[Any]) -> list[memoryview]:
    view = labels.reshape(-1).view(np.uint8).data
    return [view[at : at + _BLOCK] for at in range(0, len(view), _BLOCK)]
