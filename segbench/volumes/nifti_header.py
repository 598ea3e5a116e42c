"""NIfTI-1 and NIfTI-2 single-file headers, both byte orders, taken apart and checked.

Source: nifti1.h and nifti2.h of the NIfTI Data Format Working Group (nifti.nimh.nih.gov); field offsets, the
three methods of orientation and the meaning of scl_slope = 0 are theirs.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.volumes.header import (
    VolumeHeader,
    check_affine,
    check_axes,
    check_scaling,
    in_millimetres,
)
from segbench.volumes.sniff import describe
from segbench.volumes.volume import assumed_affine

HEADER_1 = 348
HEADER_2 = 540
MAX_EXTENSIONS = 64 * 1024**2
"""Longest stretch of header extensions that is skipped; real ones are kilobytes."""

DATATYPES: dict[int, str] = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_UNITS = {1: "m", 2: "mm", 3: "um"}
"""Spatial units of the standard; any other code says nothing."""
_REFUSED_DATATYPES = {
    0: "unknown",
    1: "one bit a voxel",
    32: "complex",
    128: "RGB colour",
    1536: "128-bit float",
    1792: "complex",
    2048: "complex",
    2304: "RGBA colour",
}


_FIELDS: dict[int, dict[str, tuple[str, int]]] = {
    HEADER_1: {
        "dim": ("8i2", 40), "datatype": ("i2", 70), "bitpix": ("i2", 72), "pixdim": ("8f4", 76),
        "vox_offset": ("f4", 108), "scl_slope": ("f4", 112), "scl_inter": ("f4", 116),
        "xyzt_units": ("i1", 123), "qform_code": ("i2", 252), "sform_code": ("i2", 254),
        "quatern": ("3f4", 256), "qoffset": ("3f4", 268), "srow": ("12f4", 280),
        "data_type": ("V10", 4), "db_name": ("V18", 14), "descrip": ("V80", 148),
        "aux_file": ("V24", 228), "intent_name": ("V16", 328),
    },
    HEADER_2: {
        "dim": ("8i8", 16), "datatype": ("i2", 12), "bitpix": ("i2", 14), "pixdim": ("8f8", 104),
        "vox_offset": ("i8", 168), "scl_slope": ("f8", 176), "scl_inter": ("f8", 184),
        "xyzt_units": ("i4", 500), "qform_code": ("i4", 344), "sform_code": ("i4", 348),
        "quatern": ("3f8", 352), "qoffset": ("3f8", 376), "srow": ("12f8", 400),
        "descrip": ("V80", 240), "aux_file": ("V24", 320), "intent_name": ("V16", 508),
    },
}  # fmt: skip
"""Type and place of the fields that are read, by the length of the header; names are the standard's."""

_Header = Mapping[str, Any]


def header_length(start: bytes, *, path: Path) -> int:
    """348 or 540: how long the header is that begins so.

    Args:
        start: the first 348 payload bytes, or fewer when there are no more.
        path: for the message.

    Raises:
        SegbenchError: SB202 when it is not a NIfTI single file, SB204 when it breaks off inside the header.
    """
    length = int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")
    known = HEADER_1 if HEADER_1 in length else HEADER_2 if HEADER_2 in length else 0
    if not known:
        raise foreign(start, path=path)
    if len(start) < HEADER_1:
        raise SegbenchError(
            "SB204",
            "the file is cut short inside its header",
            path=path,
            expected=f"{known} bytes of header",
            found=f"{len(start)} bytes",
        )
    magic = start[344:348] if known == HEADER_1 else start[4:12]
    if magic != (b"n+1\0" if known == HEADER_1 else b"n+2\0\r\n\x1a\n"):
        pair = magic[:3] in {b"ni1", b"ni2"} or (known == HEADER_1 and magic == bytes(4))
        raise SegbenchError(
            "SB202",
            f"this is {describe(start)}"
            if pair or known == HEADER_1
            else "the NIfTI-2 magic string is damaged",
            path=path,
            expected="a single-file NIfTI (magic n+1 or n+2)",
            found=repr(magic),
            mend="convert the .hdr/.img pair to one .nii.gz file" if pair else "write the file again",
        )
    return known


def foreign(head: bytes, *, path: Path) -> SegbenchError:
    """SB202, naming what the content is instead of a NIfTI volume."""
    found = describe(head)
    message = f"this is {found}, not a NIfTI volume"
    return SegbenchError("SB202", message, path=path, expected="a NIfTI volume", found=found)


def parse_header(data: bytes, *, path: Path, allow_channels: bool) -> VolumeHeader:
    """A checked header from its 348 or 540 bytes (`header_length` was asked before).

    Raises:
        SegbenchError: SB207 nonsense in sizes, types or offsets; SB209 unusable geometry; SB210 bad scaling.
    """
    fields, order = _unpacked(data)
    rank = fields["dim"][0]
    if not 1 <= rank <= 7:
        raise SegbenchError(
            "SB207", "the number of axes is not valid", path=path, expected="dim[0] in 1..7", found=rank
        )
    shape, channels = check_axes(fields["dim"][1 : 1 + rank], allow_channels=allow_channels, path=path)
    dtype = _dtype(fields["datatype"], fields["bitpix"], order, path)
    offset = _offset(fields["vox_offset"], len(data), path)
    check_scaling(fields["scl_slope"], fields["scl_inter"], path=path)
    if not all(math.isfinite(size) and size > 0 for size in fields["pixdim"][1:4]):
        raise SegbenchError(
            "SB209",
            "the voxel size is not valid",
            path=path,
            expected="pixdim[1..3] finite and above 0",
            found=_listed(fields["pixdim"][1:4]),
        )
    sform = _sform(fields) if fields["sform_code"] > 0 else None
    qform = _qform(fields) if fields["qform_code"] > 0 else None
    if sform is not None:
        affine, source = sform, "sform"
    elif fields["qform_code"] > 0:
        if qform is None:
            raise SegbenchError(
                "SB209",
                "the qform is not a rotation",
                path=path,
                expected="a quaternion of length 1 and a finite offset",
                found=f"b, c, d = {_listed(fields['quatern'])}; offset {_listed(fields['qoffset'])}",
            )
        affine, source = qform, "qform"
    else:
        # An axis that the file does not have is 1 long there, whatever pixdim says: nibabel reads it so.
        steps = [*fields["pixdim"][1 : 1 + min(rank, 3)], *[1.0] * (3 - min(rank, 3))]
        affine, source = assumed_affine(shape, (steps[2], steps[1], steps[0])), "voxel size"
    unit = _UNITS.get(fields["xyzt_units"] & 7, "")
    affine = in_millimetres(affine, unit)
    return VolumeHeader(
        format="nifti-1" if len(data) == HEADER_1 else "nifti-2",
        shape_zyx=shape,
        channels=channels,
        dtype=dtype,
        data_offset=offset,
        slope=fields["scl_slope"],
        inter=fields["scl_inter"],
        affine=affine,
        spacing_mm=check_affine(affine, path=path, source=source),
        sform_code=max(0, fields["sform_code"]),
        qform_code=max(0, fields["qform_code"]),
        sform=None if sform is None else in_millimetres(sform, unit),
        qform=None if qform is None else in_millimetres(qform, unit),
        unit=unit,
        texts=_texts(fields),
        byte_order=order,
    )


def extension_codes(block: bytes, *, big_endian: bool) -> tuple[int, ...]:
    """Codes of the extensions between header and voxels; stops at the first that is not whole."""
    if len(block) < 4 or block[0] == 0:
        return ()
    codes: list[int] = []
    at = 4
    while at + 8 <= len(block):
        size, code = struct.unpack_from(">ii" if big_endian else "<ii", block, at)
        if size < 8 or at + size > len(block):
            break
        codes.append(code)
        at += size
    return tuple(codes)


def _unpacked(data: bytes) -> tuple[dict[str, Any], str]:
    """The fields of a header as numbers, tuples and bytes, and its byte order."""
    order = "<" if int.from_bytes(data[:4], "little") == len(data) else ">"
    places = _FIELDS[len(data)]
    layout = np.dtype(
        {
            "names": list(places),
            "formats": [kind for kind, _ in places.values()],
            "offsets": [place for _, place in places.values()],
            "itemsize": len(data),
        }
    ).newbyteorder(order)
    record = np.frombuffer(data, layout)[0]
    return {name: record[name].tolist() for name in places}, order


def _texts(fields: _Header) -> dict[str, str]:
    """The text fields that hold anything, also behind a terminating zero."""
    texts = {name: value for name, value in fields.items() if isinstance(value, bytes)}
    words = {name: text.replace(b"\0", b" ").decode("latin-1").strip() for name, text in texts.items()}
    return {name: text for name, text in words.items() if text}


def _dtype(datatype: int, bitpix: int, order: str, path: Path) -> np.dtype[np.generic]:
    name = DATATYPES.get(datatype)
    if name is None:
        what = _REFUSED_DATATYPES.get(datatype, "not a type of the standard")
        raise SegbenchError(
            "SB207",
            "the type of the voxels is not one that is read",
            path=path,
            expected="integers or floats of 8 to 64 bits",
            found=f"datatype {datatype} ({what})",
        )
    dtype = np.dtype(order + name)
    if bitpix != 8 * dtype.itemsize:
        raise SegbenchError(
            "SB207",
            "datatype and bitpix disagree",
            path=path,
            expected=f"bitpix {8 * dtype.itemsize} for {dtype.name}",
            found=bitpix,
        )
    return dtype


def _offset(value: float, length: int, path: Path) -> int:
    least = length + 4
    if not (math.isfinite(value) and value == int(value) and least <= value <= least + MAX_EXTENSIONS):
        raise SegbenchError(
            "SB207",
            "the place of the voxels in the file is not valid",
            path=path,
            expected=f"a whole vox_offset from {least} to {least + MAX_EXTENSIONS}",
            found=f"{value:g}",
        )
    return int(value)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _sform(fields: _Header) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3] = np.asarray(fields["srow"], dtype=np.float64).reshape(3, 4)
    return affine


def _qform(fields: _Header) -> NDArray[np.float64] | None:
    """Affine of method 2 of the standard, or None for a quaternion that is not a rotation."""
    b, c, d = fields["quatern"]
    rest = 1.0 - (b * b + c * c + d * d)
    if not (rest >= -1e-3 and all(math.isfinite(offset) for offset in fields["qoffset"])):
        return None
    a = math.sqrt(rest) if rest > 0 else 0.0
    norm = math.sqrt(a * a + b * b + c * c + d * d)
    a, b, c, d = a / norm, b / norm, c / norm, d / norm
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    qfac = -1.0 if fields["pixdim"][0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(
        [fields["pixdim"][1], fields["pixdim"][2], qfac * fields["pixdim"][3]]
    )
    affine[:3, 3] = fields["qoffset"]
    return affine
