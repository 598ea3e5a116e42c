"""Builds NIfTI files byte by byte from the standard alone, so that tests do not trust the code they test."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

CODES = {
    "u1": 2,
    "i2": 4,
    "i4": 8,
    "f4": 16,
    "f8": 64,
    "i1": 256,
    "u2": 512,
    "u4": 768,
    "i8": 1024,
    "u8": 1280,
}
FIELDS_1 = {
    "sizeof_hdr": ("i", 0), "dim": ("8h", 40), "datatype": ("h", 70), "bitpix": ("h", 72),
    "pixdim": ("8f", 76), "vox_offset": ("f", 108), "scl_slope": ("f", 112), "scl_inter": ("f", 116),
    "xyzt_units": ("B", 123),
    "descrip": ("80s", 148), "aux_file": ("24s", 228), "db_name": ("18s", 14), "qform_code": ("h", 252),
    "sform_code": ("h", 254), "quatern": ("3f", 256), "qoffset": ("3f", 268),
    "srow": ("12f", 280), "magic": ("4s", 344),
}  # fmt: skip
FIELDS_2 = {
    "sizeof_hdr": ("i", 0), "magic": ("8s", 4), "datatype": ("h", 12), "bitpix": ("h", 14), "dim": ("8q", 16),
    "pixdim": ("8d", 104), "vox_offset": ("q", 168), "scl_slope": ("d", 176), "scl_inter": ("d", 184),
    "descrip": ("80s", 240), "aux_file": ("24s", 320), "qform_code": ("i", 344), "sform_code": ("i", 348),
    "quatern": ("3d", 352), "qoffset": ("3d", 376), "srow": ("12d", 400), "xyzt_units": ("i", 500),
}  # fmt: skip


def header(dims, kind="i2", *, version=1, order="<", affine=None, spacing=None, **fields) -> bytes:
    """A header for axes of these lengths (x first); `fields` replaces any field, also by nonsense."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0]) if affine is None else np.asarray(affine, float)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)) if spacing is None else spacing
    table, length = (FIELDS_1, 348) if version == 1 else (FIELDS_2, 540)
    values = {
        "sizeof_hdr": length,
        "dim": [len(dims), *dims, *[1] * (7 - len(dims))],
        "datatype": CODES[kind],
        "bitpix": 8 * int(kind[1:]),
        "pixdim": [1.0, *spacing, *[1.0] * (7 - len(spacing))],
        "vox_offset": length + 4,
        "scl_slope": 1.0,
        "scl_inter": 0.0,
        "xyzt_units": 2,
        "sform_code": 1,
        "srow": list(affine[:3].ravel()),
        "magic": b"n+1\0" if version == 1 else b"n+2\0\r\n\x1a\n",
    }
    values.update(fields)
    data = bytearray(length + 4)
    for name, value in values.items():
        layout, at = table[name]
        parts = value if isinstance(value, list | tuple) else [value]
        struct.pack_into(order + layout, data, at, *parts)
    return bytes(data)


def nifti(array, *, kind=None, version=1, order="<", extensions=b"", **fields) -> bytes:
    """A whole uncompressed file of an array (z, y, x) or (c, z, y, x)."""
    kind = kind or array.dtype.str[1:]
    payload = np.ascontiguousarray(array, dtype=np.dtype(order + kind)).tobytes()
    if extensions:
        fields.setdefault("vox_offset", (348 if version == 1 else 540) + 4 + len(extensions))
    head = header(array.shape[::-1], kind, version=version, order=order, **fields)
    if extensions:
        head = head[:-4] + b"\1\0\0\0" + extensions
    return head + payload


def extension(code: int, text: bytes) -> bytes:
    """One header extension, padded to 16 bytes."""
    size = -(-(8 + len(text)) // 16) * 16
    return struct.pack("<ii", size, code) + text.ljust(size - 8, b"\0")


def write(path: Path, data: bytes, *, level: int = 6) -> Path:
    """Write a file, compressed when its name says so."""
    path.write_bytes(gzip.compress(data, level, mtime=0) if path.name.endswith(".gz") else data)
    return path
