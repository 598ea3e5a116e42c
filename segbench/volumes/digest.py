"""The digest of a scan's content: equal for equal voxels, whatever compression, type or axis order."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.volumes.geometry import to_canonical
from segbench.volumes.volume import Volume

_BLOCK = 1 << 21


def array_digest(volume: Volume) -> str:
    """Sha256 of a volume's canonical content, 64 hex digits.

    Args:
        volume: one channel, on its stored grid.
    """
    return digest_canonical(to_canonical(volume).array)


def digest_canonical(array: NDArray[Any]) -> str:
    """Sha256 of the shape as little-endian int64, then the voxels in C order.

    Voxels are hashed as little-endian int16 when all are whole and in range, else as float32: a label map
    stored as float has the digest of its integers.

    Args:
        array: (z, y, x) in canonical order.
    """
    digest = hashlib.sha256(np.asarray(array.shape, dtype="<i8").tobytes())
    flat = np.ascontiguousarray(array).reshape(-1)
    kind = "<i2" if _fits_int16(flat) else "<f4"
    for at in range(0, flat.size, _BLOCK):
        digest.update(flat[at : at + _BLOCK].astype(kind).data)
    return digest.hexdigest()


def _fits_int16(flat: NDArray[Any]) -> bool:
    if flat.dtype.kind == "b" or flat.dtype.str[1:] in {"u1", "i1", "i2"}:
        return True
    low, high = flat.min(), flat.max()
    if not (low >= -32768 and high <= 32767):  # also when either is NaN
        return False
    if flat.dtype.kind in "iu":
        return True
    return all(
        bool((block == np.rint(block)).all())
        for block in (flat[at : at + _BLOCK] for at in range(0, flat.size, _BLOCK))
    )
