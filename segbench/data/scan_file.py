"""A scan as NIfTI bytes: fresh header, nothing personal in it, equal voxels give equal bytes.

Label maps go through `segbench.volumes.write_label_map`; this is for images that segbench makes itself
(phantoms) or has to cut up (one channel out of a 4D file on export).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.core.atomic import atomic_write
from segbench.volumes import spacing_of

_GZIP_LEVEL = 1
"""Noise does not shrink: level 6 takes four times as long for 3 % less."""
_RIGHT_ANGLED = 1e-5


def scan_bytes(
    array: NDArray[Any], affine: NDArray[np.float64], *, sform_code: int = 1, qform_code: int = 1
) -> bytes:
    """An uncompressed NIfTI-1 file.

    Args:
        array: (z, y, x) or (C, z, y, x), stored in its own type; channels become the file's last axis.
        affine: (4, 4), the file's (i, j, k, 1) to RAS+ mm.
        sform_code: Code of the sform, 1 where it is 0.
        qform_code: Code of the qform; written only when the axes are at right angles.
    """
    import nibabel as nib

    stored = array.T  # (z, y, x) to (x, y, z), (C, z, y, x) to (x, y, z, C)
    image = nib.Nifti1Image(stored, affine, dtype=array.dtype)
    header = image.header
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    image.set_sform(affine, code=sform_code if sform_code > 0 else 1)
    sz, sy, sx = spacing_of(affine)
    rotation = affine[:3, :3] / np.array([sx, sy, sz])
    # Written out, not a matrix product: the result must not depend on which BLAS is installed.
    gram = (rotation[:, :, None] * rotation[:, None, :]).sum(axis=0)
    right_angled = bool(np.abs(gram - np.eye(3)).max() <= _RIGHT_ANGLED)
    image.set_qform(affine if right_angled else None, code=max(qform_code, 1) if right_angled else 0)
    return image.to_bytes()


def write_scan(
    path: Path | str,
    array: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    sform_code: int = 1,
    qform_code: int = 1,
) -> Path:
    """Write a scan as `.nii.gz` or `.nii`, whole or not at all; gzip carries neither time nor name."""
    target = Path(path)
    content = scan_bytes(array, affine, sform_code=sform_code, qform_code=qform_code)
    if target.name.endswith(".gz"):
        deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
        content = deflate.compress(content) + deflate.flush()
    return atomic_write(target, content)
