"""The digest of a scan's content: equal for equal voxels, whatever compression, type or axis order."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 21


def digest_canonical(array: NDArray[Any]) -> str:
    """Sha256, 64 hex digits, of the shape as little-endian int64, then the voxels in C order.

    Voxels are hashed as little-endian int16 when all are whole and in range, else as float32: a label map
    stored as float has the digest of its integers.

    Args:
        array: (z, y, x) in canonical order, contiguous or not.
    """
    digest = hashlib.sha256(np.asarray(array.shape, dtype="<i8").tobytes())
    kind = "<i2" if _fits_int16(array) else "<f4"
    slabs = max(1, _BLOCK // max(1, array[0].size))
    for at in range(0, array.shape[0], slabs):
        # A reordered view is copied slab by slab, so that no second volume stands in memory.
        digest.update(np.ascontiguousarray(array[at : at + slabs], dtype=kind).data)
    return digest.hexdigest()


def _fits_int16(array: NDArray[Any]) -> bool:
    if array.dtype.kind == "b" or array.dtype.str[1:] in {"u1", "i1", "i2"}:
        return True
    low, high = array.min(), array.max()
    if not (low >= -32768 and high <= 32767):  # also when either is NaN
        return False
    return array.dtype.kind in "iu" or all(bool((slab == np.rint(slab)).all()) for slab in array)
