"""Reads a volume or a label map, or refuses it with the reason; never anything in between.

The order of work is the point of this module: open and look at the file, check the header, check that its
claim fits the file, the caller's limit and the memory, inflate into one buffer of exactly that size, go on
to the very end of the stream, and only then make an array.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.volumes.bytestream import ByteStream, Hasher, open_regular
from segbench.volumes.endings import VOLUME_ENDINGS, conversion
from segbench.volumes.header import VolumeHeader, check_size, missing_share
from segbench.volumes.itk_formats import ITK_ENDINGS, open_itk
from segbench.volumes.labels import as_label_array, check_declared
from segbench.volumes.nifti import open_nifti
from segbench.volumes.volume import DEFAULT_MAX_BYTES, Volume

_REHEARSE_FROM = (
    128 * 1024**2
)  # bytes of voxels from which on a suspicious file is first read without keeping it
_CODING_OVERHEAD = 1 << 20  # bytes that compression may add to incompressible voxels, beside a quarter
_BLOCK = 1 << 22  # voxels that are scaled at once: keeps the double-precision intermediate small


def read_volume(
    path: Path | str, *, max_bytes: int = DEFAULT_MAX_BYTES, allow_channels: bool = False, raw: bool = False
) -> Volume:
    """One scan as stored: voxels z, y, x (channels first), spacing and affine.

    Args:
        path: a `.nii`, `.nii.gz`, `.nrrd` or `.mha` file.
        max_bytes: largest payload that is read (`--max-volume`).
        allow_channels: accept a fourth axis; the array is then (C, z, y, x) when there is one.
        raw: keep the stored type where no scaling applies, in place of float32.

    Returns:
        The volume, scaling applied; float32, or the stored type with `raw`.

    Raises:
        SegbenchError: SB201 to SB211 (`datasets.md` 6), carrying `.code`, `.path`, `.expected`, `.found`,
            `.mend`. Nothing else.
    """
    header, stored = load_stored(path, max_bytes=max_bytes, allow_channels=allow_channels, as_float=not raw)
    array = stored if raw and not header.scaled else as_real(header, stored)
    if header.scaled or stored.dtype.kind == "f":  # integers as they are cannot but be finite
        check_finite(array, path=path)
    return as_volume(header, array)


def read_label_map(
    path: Path | str, *, labels: Iterable[int] | None = None, max_bytes: int = DEFAULT_MAX_BYTES
) -> Volume:
    """One label map as stored, uint8, or uint16 when a value exceeds 255.

    Args:
        path: a `.nii`, `.nii.gz`, `.nrrd` or `.mha` file.
        labels: the declared values; any other value but 0 is then refused.
        max_bytes: largest payload that is read (`--max-volume`).

    Returns:
        The label map on its stored grid.

    Raises:
        SegbenchError: SB201 to SB210, SB211 for NaN or infinity, SB212 for a value that is not a label, SB213
            for an undeclared one.
    """
    header, stored = load_stored(path, max_bytes=max_bytes)
    array = as_label_array(stored, slope=header.slope, inter=header.inter, path=path)
    if labels is not None:
        check_declared(array, labels, path=path)
    return as_volume(header, array)


def read_header(
    path: Path | str, *, max_bytes: int = DEFAULT_MAX_BYTES, allow_channels: bool = True
) -> VolumeHeader:
    """The checked header alone: milliseconds even for large files.

    Raises:
        SegbenchError: SB201 to SB210 as far as the first bytes and the size of the file tell.
    """
    with open_payload(path, allow_channels=allow_channels, max_bytes=max_bytes) as (header, _):
        return header


def plausible_size(path: Path | str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bool:
    """Whether a file is about as long as the voxels that its header announces; no voxel is read.

    Raises:
        SegbenchError: as `read_header`.
    """
    with open_payload(path, allow_channels=True, max_bytes=max_bytes) as (header, payload):
        need = header.data_offset + header.payload_bytes
        if payload.coding == "plain":
            return payload.file_bytes == need
        return payload.file_bytes <= need + need // 4 + _CODING_OVERHEAD


def load_stored(
    path: Path | str,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    allow_channels: bool = False,
    as_float: bool = False,
    hasher: Hasher | None = None,
) -> tuple[VolumeHeader, NDArray[Any]]:
    """Header and stored values, the whole file read and verified.

    Args:
        path: the file.
        max_bytes: largest payload that is read.
        allow_channels: accept a fourth axis.
        as_float: the caller makes a float32 copy next; the memory check counts it.
        hasher: is fed every byte of the file, so that one pass gives the file's digest too.

    Returns:
        The header and an array (z, y, x) or (C, z, y, x), C-contiguous, in the machine's byte order.
    """
    with open_payload(
        path, allow_channels=allow_channels, max_bytes=max_bytes, raw=not as_float, hasher=hasher
    ) as (header, payload):
        if _looks_cut(header, payload):
            # Either several members or a damaged file: find out before so much memory is filled.
            with open_payload(path, allow_channels=allow_channels, max_bytes=max_bytes) as (_, rehearsal):
                _read_through(header, rehearsal, rehearsal.skip, path)
        buffer = np.empty(header.payload_bytes, dtype=np.uint8)
        _read_through(header, payload, lambda _: payload.fill(buffer.data), path)
        return header, _shaped(header, buffer)


@contextmanager
def open_payload(
    path: Path | str, *, allow_channels: bool, max_bytes: int, raw: bool = True, hasher: Hasher | None = None
) -> Generator[tuple[VolumeHeader, ByteStream]]:
    """Header and payload of any known format, sizes checked, the payload standing at the first voxel."""
    place = Path(path)
    with open_regular(path) as stream:
        hint = conversion(place.name)
        if hint is not None:
            raise SegbenchError(
                "SB202",
                "the file is in a format that is not read",
                path=place,
                expected=f"a name that ends in {' or '.join(VOLUME_ENDINGS)}",
                found=place.name,
                mend=hint,
            )
        opener = open_itk if place.name.lower().endswith(ITK_ENDINGS) else open_nifti
        header, payload = opener(place, stream, allow_channels=allow_channels, hasher=hasher)
        check_size(
            header,
            most_payload=payload.most(),
            max_bytes=max_bytes,
            path=place,
            packed=payload.coding != "plain",
            raw=raw,
        )
        yield header, payload


def as_real(header: VolumeHeader, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Stored values with the scaling applied, float32.

    The product is taken in double precision, block by block, and rounded once.
    """
    if not header.scaled:
        return stored.astype(np.float32, copy=False)
    result = np.empty(stored.shape, dtype=np.float32)
    flat_in, flat_out = stored.reshape(-1), result.reshape(-1)
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which is refused afterwards
        for at in range(0, flat_in.size, _BLOCK):
            block = flat_in[at : at + _BLOCK].astype(np.float64)
            block *= header.slope
            block += header.inter
            flat_out[at : at + _BLOCK] = block
    return result


def check_finite(array: NDArray[Any], *, path: Path | str) -> None:
    """Refuse NaN and infinity (SB211)."""
    # The extremes carry NaN and infinity through, at a fraction of the cost of testing each voxel.
    if array.dtype.kind != "f" or (np.isfinite(array.min()) and np.isfinite(array.max())):
        return
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    raise SegbenchError(
        "SB211",
        "voxels are not numbers",
        path=path,
        expected="finite values",
        found=f"{nan:,} NaN and {infinite:,} infinite of {array.size:,} voxels",
    )


def as_volume(header: VolumeHeader, array: NDArray[Any]) -> Volume:
    """The volume that a header and its voxels make."""
    return Volume(array, header.spacing_mm, header.affine, header.sform_code, header.qform_code, header.unit)


def _shaped(header: VolumeHeader, buffer: NDArray[np.uint8]) -> NDArray[Any]:
    values = buffer.view(header.dtype)
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
    if header.channels == 1:
        return values.reshape(header.shape_zyx)
    if header.channels_fastest:
        grid = values.reshape(*header.shape_zyx, header.channels)
        return np.ascontiguousarray(np.moveaxis(grid, -1, 0))
    return values.reshape(header.channels, *header.shape_zyx)


def _looks_cut(header: VolumeHeader, payload: ByteStream) -> bool:
    """Whether a large gzip file does not end as one whole member would."""
    if payload.coding != "gzip" or header.payload_bytes < _REHEARSE_FROM:
        return False
    return payload.last_length() != (header.data_offset + header.payload_bytes) % 2**32


def _read_through(
    header: VolumeHeader, payload: ByteStream, take: Callable[[int], int], path: Path | str
) -> None:
    """Take the voxels and go on to the end of the file; refuse too little and too much."""
    try:
        got = take(header.payload_bytes)
    except SegbenchError as error:
        if error.code != "SB204":
            raise
        raise _cut_short(header, payload, error.message, path) from None
    if got < header.payload_bytes:
        raise _cut_short(header, payload, "the file is cut short", path)
    payload.finish(header.data_offset + header.payload_bytes)


def _cut_short(header: VolumeHeader, payload: ByteStream, message: str, path: Path | str) -> SegbenchError:
    got = max(0, payload.position - header.data_offset)
    return SegbenchError(
        "SB204",
        f"{message}: {missing_share(header, got)}",
        path=path,
        expected=f"{header.payload_bytes:,} bytes of voxels",
        found=f"{got:,} bytes",
    )
