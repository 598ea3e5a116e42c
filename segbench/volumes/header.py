"""What a volume file says about itself, checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.core.text import bytes_words
from segbench.volumes.limits import memory_budget
from segbench.volumes.volume import UNITS_MM, spacing_of

SPACING_LIMITS_MM = (1e-60, 1e60)
"""Beyond these the squares of distances are no longer numbers: a distance would come out as 0 or inf."""

MAX_SHEAR = 1e-3
"""Largest |R^T R - I| of the unit direction columns that still counts as a right-angled grid."""


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """One checked header.

    Attributes:
        format: `nifti-1`, `nifti-2`, `nrrd` or `mha`.
        shape_zyx: voxels along (z, y, x).
        channels: 1, or the length of the fourth axis.
        channels_fastest: the file stores all channels of a voxel together (NRRD and MHA vectors).
        dtype: numpy type of the stored voxels, byte order of the file.
        data_offset: payload bytes before the first voxel.
        slope, inter: scaling of the stored values; slope 0 means none.
        affine: (4, 4) float64, (i, j, k, 1) to RAS+ mm: sform, else qform, else pixdim, as nibabel has it.
        spacing_mm: (z, y, x), millimetres, from `affine`.
        sform_code, qform_code: NIfTI codes; 1 and 1 for other formats, 0 and 0 where these give no position.
        sform, qform: both affines where their code is > 0 and they can be used, for comparing one with the
            other.
        unit: in which the file states its lengths, a key of `UNITS_MM`; "" where it does not say. `affine`,
            `sform`, `qform` and `spacing_mm` are converted to millimetres already.
        texts: non-empty free text fields by name (`descrip`, `aux_file`, `db_name`, `intent_name`, ...).
        extension_codes: codes of NIfTI header extensions; their content is never looked at.
        byte_order: `<` or `>`.
    """

    format: str
    shape_zyx: tuple[int, int, int]
    channels: int
    dtype: np.dtype[np.generic]
    data_offset: int
    slope: float
    inter: float
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    sform_code: int = 1
    qform_code: int = 1
    sform: NDArray[np.float64] | None = None
    qform: NDArray[np.float64] | None = None
    unit: str = "mm"
    channels_fastest: bool = False
    texts: dict[str, str] = field(default_factory=dict[str, str])
    extension_codes: tuple[int, ...] = ()
    byte_order: str = "<"

    @property
    def positioned(self) -> bool:
        """Whether the file says where its voxels lie."""
        return self.sform_code > 0 or self.qform_code > 0

    @property
    def payload_bytes(self) -> int:
        """Bytes that the voxels take in the file, uncompressed."""
        return math.prod(self.shape_zyx) * self.channels * self.dtype.itemsize

    @property
    def big_endian(self) -> bool:
        """Byte order of the file."""
        return self.byte_order == ">"

    @property
    def scaled(self) -> bool:
        """Whether stored values are not the real values."""
        return self.slope != 0.0 and (self.slope != 1.0 or self.inter != 0.0)


def check_axes(dims: Sequence[int], *, allow_channels: bool, path: Path) -> tuple[tuple[int, int, int], int]:
    """Shape (z, y, x) and channel count from the axis lengths as stored (x first).

    Raises:
        SegbenchError: SB207 for a length below 1 or too many axes once trailing ones of length 1 are dropped.
    """
    if any(length < 1 for length in dims):
        raise SegbenchError(
            "SB207", "an axis has no voxels", path=path, expected="lengths of at least 1", found=_times(dims)
        )
    lengths = list(dims)
    while len(lengths) > 3 and lengths[-1] == 1:
        lengths.pop()
    if len(lengths) > (4 if allow_channels else 3):
        what = "one volume with channels at most" if allow_channels else "a single three-dimensional volume"
        raise SegbenchError(
            "SB207",
            f"the file has {len(lengths)} axes",
            path=path,
            expected=what,
            found=_times(dims),
            mend=None
            if allow_channels
            else "write one volume; of channels or probabilities a label map keeps the index of the largest",
        )
    lengths += [1] * (3 - len(lengths))
    return (lengths[2], lengths[1], lengths[0]), (lengths[3] if len(lengths) == 4 else 1)


def check_size(
    header: VolumeHeader, *, most_payload: int, max_bytes: int, path: Path, packed: bool, raw: bool = True
) -> None:
    """Refuse what cannot fit in memory or cannot be in a file of this size.

    Raises:
        SegbenchError: SB208 above `max_bytes` or the memory budget; SB204 when the file is too
            small for its claim, however well it were compressed.
    """
    need = header.payload_bytes
    shape = _times((header.channels, *header.shape_zyx) if header.channels > 1 else header.shape_zyx)
    if need > max_bytes:
        raise SegbenchError(
            "SB208",
            "the volume is larger than allowed",
            path=path,
            expected=f"at most {bytes_words(max_bytes)}",
            found=f"{shape} voxels (z, y, x) of {header.dtype.name}: {bytes_words(need)}",
        )
    if header.data_offset + need > most_payload:
        bound = "even at the best possible compression" if packed else "by its size"
        raise SegbenchError(
            "SB204",
            "the file is far too small for the voxels it announces"
            if packed
            else _missing(header, most_payload),
            path=path,
            expected=f"{shape} voxels (z, y, x) of {header.dtype.name}: {need:,} bytes",
            found=f"at most {max(0, most_payload - header.data_offset):,} bytes {bound}",
        )
    total = need if raw else need + 4 * (need // header.dtype.itemsize)
    budget = memory_budget() if total > 64 * 1024**2 else None
    if budget is not None and total > budget:
        raise SegbenchError(
            "SB208",
            "the volume does not fit in the memory that is free now",
            path=path,
            expected=f"at most {bytes_words(budget)}",
            found=bytes_words(total),
            mend="use a machine with more memory, or close what else is running",
        )


def missing_share(header: VolumeHeader, got: int) -> str:
    """How much of the voxels is missing, for people: "43 % of the voxels are missing"."""
    need = header.payload_bytes
    share = 100.0 * (need - got) / need
    return (
        f"{share:.0f} % of the voxels are missing"
        if share >= 1
        else f"{need - got:,} bytes are missing at the end"
    )


def _missing(header: VolumeHeader, file_bytes: int) -> str:
    return f"the file is cut short: {missing_share(header, max(0, file_bytes - header.data_offset))}"


def check_scaling(slope: float, inter: float, *, path: Path) -> None:
    """Refuse a scaling that is not a number (SB210). A slope of 0 means no scaling."""
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise SegbenchError(
            "SB210",
            "the scaling of the values is not a number",
            path=path,
            expected="finite scl_slope and scl_inter",
            found=f"slope {slope}, inter {inter}",
        )


def check_affine(affine: NDArray[np.float64], *, path: Path, source: str) -> tuple[float, float, float]:
    """Spacing (z, y, x) of a usable affine.

    Args:
        affine: (4, 4), (i, j, k, 1) to RAS+ mm.
        path: for the message.
        source: where the affine comes from (`sform`, `qform`, ...), for the message.

    Raises:
        SegbenchError: SB209 when it is not finite, singular, sheared, or so fine or coarse that distances
            cannot be computed.
    """
    if not np.isfinite(affine).all():
        raise _bad_affine(path, f"the {source} holds NaN or infinity", affine)
    spacing = spacing_of(affine)
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise _bad_affine(path, f"the {source} gives an axis no length", affine)
    least, most = SPACING_LIMITS_MM
    if not all(least <= s <= most for s in spacing):
        raise SegbenchError(
            "SB209",
            f"the {source} gives a voxel size with which no distance can be computed",
            path=path,
            expected=f"{least:g} to {most:g} mm",
            found=" x ".join(f"{s:g}" for s in spacing) + " mm (z, y, x)",
        )
    directions = affine[:3, :3] / np.asarray(spacing[::-1])
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if not shear <= MAX_SHEAR:
        flat = abs(float(np.linalg.det(directions))) < 1e-6
        raise SegbenchError(
            "SB209",
            f"the {source} is singular"
            if flat
            else f"the {source} is sheared: its axes are not at right angles",
            path=path,
            expected=f"|R^T R - I| <= {MAX_SHEAR:g}",
            found=f"{shear:.3g}; {_rows(affine)}",
            mend="resample the scan and its label map onto a right-angled grid with the tool that made them",
        )
    return spacing


def in_millimetres(affine: NDArray[np.float64], unit: str) -> NDArray[np.float64]:
    """An affine whose lengths are in another unit, in millimetres; itself where they are already."""
    if UNITS_MM[unit] == 1.0:
        return affine
    # a header holds float32: seven digits are what it says, and 0.001 m is 1 mm
    scaled = np.array([[UNITS_MM[unit]]] * 3 + [[1.0]]) * affine
    return np.array([[float(f"{value:.7g}") for value in row] for row in scaled.tolist()])


def _bad_affine(path: Path, message: str, affine: NDArray[np.float64]) -> SegbenchError:
    expected = "three finite axes of a length above 0"
    return SegbenchError("SB209", message, path=path, expected=expected, found=_rows(affine))


def _times(lengths: Sequence[int]) -> str:
    return " x ".join(str(length) for length in lengths)


def _rows(affine: NDArray[np.float64]) -> str:
    return "; ".join(" ".join(f"{value:.6g}" for value in row) for row in affine[:3])
