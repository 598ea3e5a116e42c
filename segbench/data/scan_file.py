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
from segbench.volumes import Volume, spacing_of
from segbench.volumes.volume import UNITS_MM, is_assumed
from segbench.volumes.write import UNIT_CODES

_GZIP_LEVEL = 1
"""Noise does not shrink: level 6 takes four times as long for 3 % less."""
_RIGHT_ANGLED = 1e-5


def scan_bytes(array: NDArray[Any], affine: NDArray[np.float64], *, like: Volume | None = None) -> bytes:
    """An uncompressed NIfTI-1 file.

    Args:
        array: (z, y, x) or (C, z, y, x), stored in its own type; channels become the file's last axis.
        affine: (4, 4), the file's (i, j, k, 1) to RAS+ mm.
        like: The scan whose codes and unit are kept; a scan without position stays one. Scanner
            coordinates in millimetres otherwise.
    """
    import nibabel as nib

    stored = array.T  # (z, y, x) to (x, y, z), (C, z, y, x) to (x, y, z, C)
    unit = "mm" if like is None or like.unit not in UNIT_CODES else like.unit
    lost = like is not None and not like.positioned and is_assumed(affine, like.shape_zyx, like.spacing_mm)
    affine = np.diag([*[1.0 / UNITS_MM[unit]] * 3, 1.0]) @ affine if UNITS_MM[unit] != 1.0 else affine
    image = nib.Nifti1Image(stored, affine, dtype=array.dtype)
    header = image.header
    header.set_xyzt_units(UNIT_CODES[unit])
    header.set_slope_inter(1, 0)
    if lost:
        header.set_sform(None, code=0)
        header.set_qform(None, code=0)
        return image.to_bytes()
    sform_code, qform_code = (1, 1) if like is None else (like.sform_code, like.qform_code)
    image.set_sform(affine, code=sform_code if sform_code > 0 else 1)
    sz, sy, sx = spacing_of(affine)
    rotation = affine[:3, :3] / np.array([sx, sy, sz])
    # Written out, not a matrix product: the result must not depend on which BLAS is installed.
    gram = (rotation[:, :, None] * rotation[:, None, :]).sum(axis=0)
    right_angled = bool(np.abs(gram - np.eye(3)).max() <= _RIGHT_ANGLED)
    image.set_qform(affine if right_angled else None, code=max(qform_code, 1) if right_angled else 0)
    return image.to_bytes()


def write_scan(
    path: Path | str, array: NDArray[Any], affine: NDArray[np.float64], *, like: Volume | None = None
) -> Path:
    """Write a scan as `.nii.gz` or `.nii`, whole or not at all; gzip carries neither time nor name."""
    target = Path(path)
    content = scan_bytes(array, affine, like=like)
    if target.name.endswith(".gz"):
        deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
        content = deflate.compress(content) + deflate.flush()
    return atomic_write(target, content)
