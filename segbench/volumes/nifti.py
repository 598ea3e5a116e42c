"""Opens a NIfTI file up to its first voxel, with every claim of its header checked."""

from __future__ import annotations

from dataclasses import replace
from io import FileIO
from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.volumes.bytestream import GZIP_MAGIC, ByteStream, Hasher
from segbench.volumes.header import VolumeHeader
from segbench.volumes.nifti_header import HEADER_1, extension_codes, foreign, header_length, parse_header


def open_nifti(
    path: Path, stream: FileIO, *, allow_channels: bool, hasher: Hasher | None = None
) -> tuple[VolumeHeader, ByteStream]:
    """Header of a single-file NIfTI and its payload standing at the first voxel.

    Raises:
        SegbenchError: SB202, SB203, SB204, SB205, SB207, SB209, SB210 (`datasets.md` 6).
    """
    is_gzip = _check_name(path, stream)
    payload = ByteStream(path, stream, coding="gzip" if is_gzip else "plain", hasher=hasher)
    data = payload.read(HEADER_1)
    length = header_length(data, path=path)
    data += payload.read(length - len(data))
    if len(data) < length:
        raise SegbenchError(
            "SB204",
            "the file is cut short inside its header",
            path=path,
            expected=f"{length} bytes of header",
            found=f"{len(data)} bytes",
        )
    header = parse_header(data, path=path, allow_channels=allow_channels)
    gap = header.data_offset - length
    if header.data_offset > payload.most():
        raise SegbenchError(
            "SB207",
            "the header places the voxels beyond the end of the file",
            path=path,
            expected=f"an offset of at most {payload.most():,}",
            found=f"{header.data_offset:,}",
        )
    block = payload.read(gap)
    if len(block) < gap:
        raise SegbenchError(
            "SB207",
            "the header places the voxels beyond the end of the file",
            path=path,
            expected=f"an offset of at most {length + len(block):,}",
            found=f"{header.data_offset:,}",
        )
    codes = extension_codes(block, big_endian=header.big_endian)
    return (replace(header, extension_codes=codes) if codes else header), payload


def _check_name(path: Path, stream: FileIO) -> bool:
    """Whether the content is gzip; refuses a name that says otherwise (SB203) or foreign content (SB202)."""
    head = stream.read(512)
    stream.seek(0)
    says_gzip = path.name.lower().endswith(".gz")
    is_gzip = head.startswith(GZIP_MAGIC)
    if says_gzip == is_gzip:
        return is_gzip
    if is_gzip:
        raise SegbenchError(
            "SB203",
            "the name says uncompressed, the content is gzip",
            path=path,
            expected="a name that ends in .gz",
            found=path.name,
            mend="rename the file so that it ends in .nii.gz",
        )
    if head[344:347] == b"n+1" or head[4:7] == b"n+2":
        raise SegbenchError(
            "SB203",
            "the name says gzip, the content is an uncompressed NIfTI",
            path=path,
            expected="gzip data (1f 8b)",
            found=head[:4].hex(" "),
            mend="rename the file so that it ends in .nii, or compress it with gzip",
        )
    raise foreign(head, path=path)
