"""Opens NRRD and MetaImage (.mha) files up to their first voxel.

Both are a text header in front of plain or compressed voxels, so they are read by the same checked stream as
NIfTI. ITK's own readers are not used: they return a truncated file as whole, without a word.

Source: teem.sourceforge.net/nrrd/format.html; itk.org/Wiki/ITK/MetaIO/Documentation. Both store positions
in LPS unless said otherwise; here they become RAS+.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.volumes.bytestream import ByteStream, Coding, Hasher
from segbench.volumes.header import VolumeHeader, check_affine, check_axes, in_millimetres
from segbench.volumes.header_fields import (
    check_given,
    counts,
    first_of,
    numbers,
    read_fields,
    spelled,
    truth,
    unit_of,
    unreadable,
    vectors,
    words,
)
from segbench.volumes.sniff import describe
from segbench.volumes.volume import UNITS_MM

ITK_ENDINGS = (".nrrd", ".mha")

_MAX_HEADER = 1024**2
_NRRD_END = re.compile(rb"\r?\n\r?\n")
_MHA_END = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n", re.MULTILINE)
_NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_NRRD_SPACES = {
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip


def open_itk(
    path: Path, stream: FileIO, *, allow_channels: bool, hasher: Hasher | None = None
) -> tuple[VolumeHeader, ByteStream]:
    """Header of an .nrrd or .mha file and its payload standing at the first voxel.

    Raises:
        SegbenchError: SB202 foreign content or a detached data file; SB204 a header that breaks off; SB207
            sizes, types or encodings that cannot be read; SB209 unusable geometry.
    """
    head = stream.read(_MAX_HEADER)
    nrrd = path.name.lower().endswith(".nrrd")
    end = _header_end(head, nrrd=nrrd, path=path)
    if hasher is not None:
        hasher.update(head[:end])
    stream.seek(end)
    text = head[:end].decode("latin-1")
    header, coding = (_nrrd if nrrd else _mha)(text, path=path, allow_channels=allow_channels)
    return header, ByteStream(path, stream, coding=coding, hasher=hasher)


def _header_end(head: bytes, *, nrrd: bool, path: Path) -> int:
    if not (head.startswith(b"NRRD000") if nrrd else re.match(rb"\s*(ObjectType|NDims)\s*=", head)):
        kind = "an NRRD" if nrrd else "a MetaImage"
        found = describe(head[:512])
        message = f"this is {found}, not {kind} volume"
        raise SegbenchError("SB202", message, path=path, expected=f"{kind} volume", found=found)
    match = re.search(_NRRD_END if nrrd else _MHA_END, head)
    if match is None:
        raise SegbenchError(
            "SB204",
            "the file is cut short inside its header",
            path=path,
            expected="the line that ends the header",
            found=f"{len(head):,} bytes without it",
        )
    return match.end()


def _nrrd(text: str, *, path: Path, allow_channels: bool) -> tuple[VolumeHeader, Coding]:
    lines = [line for line in text.split("\n")[1:] if not line.startswith("#") and ":=" not in line]
    fields = read_fields(lines, ":", path)
    check_given(fields, path)
    if "datafile" in fields:
        raise _detached(path)
    if any(fields.get(key, "0") != "0" for key in ("lineskip", "byteskip")):
        raise unreadable(path, "line skip or byte skip", "one", "none")
    codings: dict[str, Coding] = {"raw": "plain", "gzip": "gzip", "gz": "gzip"}
    coding = codings.get(fields.get("encoding", "").lower())
    if coding is None:
        raise unreadable(path, "encoding", fields.get("encoding"), "raw or gzip")
    code = next((c for c, names in _NRRD_TYPES.items() if fields.get("type", "").lower() in names), None)
    if code is None:
        raise unreadable(path, "type", fields.get("type"), "an integer or float type")
    endian = fields.get("endian", "little" if code[1] == "1" else "").lower()
    if endian not in {"little", "big"}:
        raise unreadable(path, "endian", endian, "little or big")
    sizes = counts(fields.get("sizes", ""), path)
    directions = vectors(fields, "spacedirections", path)
    for key in ("dimension", "spacedirections", "spacings", "kinds", "units"):
        count = _count_of(fields, key, directions)
        if count is not None and count != str(len(sizes)):
            raise unreadable(path, spelled(key), count, f"{len(sizes)}, as sizes has")
    spatial = [i for i, direction in enumerate(directions) if direction is not None]
    if not directions:
        kinds = fields.get("kinds", "").split() or ["domain"] * len(sizes)
        spatial = [i for i in range(len(sizes)) if kinds[i].lower() in {"domain", "space"}]
    if len(sizes) - len(spatial) > 1 or (
        len(sizes) > len(spatial) and 0 < _only(sizes, spatial) < len(sizes) - 1
    ):
        found = f"sizes {fields.get('sizes')}, space directions {fields.get('spacedirections', 'none')}"
        raise unreadable(path, "the order of axes", found, "three axes of space, channels first or last")
    first = len(sizes) > len(spatial) and _only(sizes, spatial) == 0
    flips = _NRRD_SPACES.get(fields.get("space", "lps").lower())
    if flips is None or not 1 <= len(spatial) <= 3:
        found = fields.get("space", f"{len(spatial)} axes of space")
        raise unreadable(path, "space", found, "1 to 3 axes in LPS, RAS or LAS")
    dims = _dims([sizes[i] for i in spatial], [sizes[i] for i in range(len(sizes)) if i not in spatial])
    given = [direction for direction in directions if direction is not None]
    space = _space_dimension(fields, given, path)
    columns = given or _diagonal(fields, spatial, path)
    origins = vectors(fields, "spaceorigin", path)
    origin = origins[0] if origins else [0.0] * space
    if len(origins) > 1 or origin is None or len(origin) != space:
        raise unreadable(path, "space origin", fields["spaceorigin"][:80], f"one vector of {space} numbers")
    affine = _affine(columns, origin, flips, path)
    affine, unit = _nrrd_units(fields, affine, spatial, space, path)
    header = _header("nrrd", dims, code, endian == "big", affine, first, path, allow_channels, unit)
    positioned = int(bool(directions or origins))
    return replace(header, sform_code=positioned, qform_code=positioned), coding


def _mha(text: str, *, path: Path, allow_channels: bool) -> tuple[VolumeHeader, Coding]:
    fields = read_fields(text.split("\n"), "=", path)
    check_given(fields, path)
    if fields["elementdatafile"].upper() != "LOCAL":
        raise _detached(path)
    if fields.get("binarydata", "True").lower() != "true" or fields.get("headersize", "0") != "0":
        raise unreadable(path, "BinaryData or HeaderSize", "text voxels or a skipped header", "binary voxels")
    code = _META_TYPES.get(fields.get("elementtype", ""))
    if code is None:
        raise unreadable(path, "ElementType", fields.get("elementtype"), "an integer or float type")
    dims = counts(fields.get("dimsize", ""), path)
    rank = len(dims)
    if fields.get("ndims", str(rank)) != str(rank):
        raise unreadable(path, "NDims", fields.get("ndims"), f"{rank}, as DimSize has")
    counted = counts(fields.get("elementnumberofchannels", "1"), path)
    if len(counted) != 1:
        raise unreadable(path, "ElementNumberOfChannels", f"{len(counted)} numbers", "one number")
    spacing = first_of(fields, ("elementspacing", "elementsize"), [1.0] * rank, path)
    matrix = first_of(fields, ("transformmatrix", "rotation", "orientation"), np.eye(rank).ravel(), path)
    origin = first_of(fields, ("offset", "position", "origin"), [0.0] * rank, path)
    unit = unit_of(fields.get("distanceunits", "mm"), "DistanceUnits", path)
    if not len(spacing) == len(origin) == rank or len(matrix) != rank * rank or rank < 2:
        raise SegbenchError(
            "SB207",
            "the geometry of the MetaImage does not fit its axes",
            path=path,
            expected="spacing, offset and directions for each axis, two axes or more",
            found=f"DimSize {dims}",
        )
    columns = [[spacing[i] * matrix[rank * i + j] for j in range(min(rank, 3))] for i in range(min(rank, 3))]
    if any(size <= 0 for size in spacing):
        raise SegbenchError(
            "SB209", "the voxel size is not valid", path=path, expected="spacings above 0", found=spacing
        )
    affine = in_millimetres(_affine(columns, origin[:3], (-1, -1, 1), path), unit)
    dims = _dims(dims, counted if counted != [1] else [])
    big = truth(fields, "binarydatabyteordermsb", path) or truth(fields, "elementbyteordermsb", path)
    coding: Coding = "zlib" if truth(fields, "compresseddata", path) else "plain"
    return _header("mha", dims, code, big, affine, True, path, allow_channels, unit), coding


def _dims(spatial: list[int], channels: list[int]) -> list[int]:
    """Axis lengths as a NIfTI has them: channels stand fourth, also where a slice has them."""
    return [*spatial, *[1] * (3 - len(spatial)), *channels] if channels else spatial


def _header(
    name: str,
    dims: list[int],
    code: str,
    big: bool,
    affine: NDArray[np.float64],
    channels_fastest: bool,
    path: Path,
    allow_channels: bool,
    unit: str,
) -> VolumeHeader:
    shape, channels = check_axes(dims, allow_channels=allow_channels, path=path)
    return VolumeHeader(
        format=name,
        shape_zyx=shape,
        channels=channels,
        dtype=np.dtype((">" if big else "<") + code),
        data_offset=0,
        slope=0.0,
        inter=0.0,
        affine=affine,
        spacing_mm=check_affine(affine, path=path, source="space directions"),
        channels_fastest=channels_fastest and channels > 1,
        unit=unit,
        byte_order=">" if big else "<",
    )


def _affine(
    columns: list[list[float]], origin: list[float], flips: tuple[int, ...], path: Path
) -> NDArray[np.float64]:
    affine = np.eye(4)
    try:
        for axis, column in enumerate(columns):
            affine[:3, axis] = [*column, *[0.0] * (3 - len(column))]
        affine[:3, 3] = [*origin, *[0.0] * (3 - len(origin))]
    except ValueError:
        raise SegbenchError(
            "SB209",
            "the directions of the axes are not three numbers each",
            path=path,
            expected="three numbers an axis",
            found=columns,
        ) from None
    return np.array([*flips, 1], dtype=np.float64)[:, np.newaxis] * affine + 0.0  # no minus zeros


def _diagonal(fields: dict[str, str], spatial: list[int], path: Path) -> list[list[float]]:
    spacings = fields["spacings"].split() if "spacings" in fields else ["1"] * (max(spatial) + 1)
    values = [1.0 if spacings[i].lower() == "nan" else numbers(spacings[i], path)[0] for i in spatial]
    return [[value if row == axis else 0.0 for row in range(3)] for axis, value in enumerate(values)]


def _count_of(fields: Mapping[str, str], key: str, directions: Sequence[object]) -> str | None:
    """How many axes a field speaks of, as text; None when it is not there."""
    if key not in fields:
        return None
    if key == "dimension":
        return fields[key]
    if key == "spacedirections":
        return str(len(directions))
    return str(len(words(fields[key]) if key == "units" else fields[key].split()))


def _space_dimension(fields: Mapping[str, str], given: Sequence[list[float]], path: Path) -> int:
    """Numbers in each vector of an NRRD header: as many as its space has directions."""
    stated = "3" if "space" in fields else fields.get("spacedimension", str(len(given[0]) if given else 3))
    found = [str(len(vector)) for vector in given if str(len(vector)) != stated]
    if stated not in {"1", "2", "3"} or found:
        raise unreadable(path, "space directions", "vectors of other lengths", f"{stated} numbers in each")
    return int(stated)


def _nrrd_units(
    fields: Mapping[str, str], affine: NDArray[np.float64], spatial: Sequence[int], space: int, path: Path
) -> tuple[NDArray[np.float64], str]:
    """The affine in millimetres and the unit it was stated in; "mm" where the axes differ in it.

    `space units` speaks of the three directions of space, `units` of each axis of the array.
    """
    by_space = [unit_of(word, "space units", path) for word in words(fields.get("spaceunits", ""))]
    if "spaceunits" in fields and len(by_space) != space:
        raise unreadable(path, "space units", fields["spaceunits"][:80], f"{space} units of length")
    by_axis = words(fields.get("units", ""))
    along = [unit_of(by_axis[i], "units", path) for i in spatial] if by_axis else []
    units = by_space if any(by_space) else along
    if len(set(units)) <= 1:
        unit = units[0] if units else ""
        return in_millimetres(affine, unit), unit
    scale = np.array([UNITS_MM[unit] for unit in units])
    scaled = affine.copy()
    if units is by_space:
        scaled[: len(scale)] *= scale[:, np.newaxis]
    else:
        scaled[:3, : len(scale)] *= scale
    return scaled, "mm"


def _only(sizes: list[int], spatial: list[int]) -> int:
    return next(i for i in range(len(sizes)) if i not in spatial)


def _detached(path: Path) -> SegbenchError:
    return SegbenchError(
        "SB202",
        "the voxels are in another file",
        path=path,
        expected="header and voxels in one file",
        found="a header that names a data file",
        mend="convert it to one .nrrd, .mha or .nii.gz file",
    )
