"""What verification remembers of a file: facts only, no judgement, so that they outlive cards and checks.

A fact is taken from the bytes of the file alone. What it means (an undeclared label, a shape that differs) is
decided afterwards from the facts, so a changed card never makes the cache wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segbench.data.finding import Finding
from segbench.data.verify.text import suspicious
from segbench.volumes import VolumeHeader, corner_displacement

Role = Literal["image", "label", "mask"]

FACTS_VERSION = 6
"""Part of the cache; raised when a fact changes its meaning or a reader refuses more: all is read again."""


UNUSABLE_QFORM = 1e9
"""Displacement in voxels that stands for a qform which is not a rotation at all."""


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """Header of a volume, as far as checks ask for it; a grid that `volumes.compare_geometry` takes.

    Attributes:
        shape_zyx: voxels along (z, y, x).
        channels: length of the fourth axis, or 1.
        dtype: numpy name of the stored type.
        scaled: whether the header scales the values.
        spacing_mm: (z, y, x).
        affine_rows: 16 numbers, row by row, (i, j, k, 1) to RAS+ mm.
        sform_code, qform_code: NIfTI codes.
        forms_apart: corner displacement in voxels between sform and qform when both count, else None.
        unit: in which the file states lengths, a key of `UNITS_MM`; spacing and affine are in millimetres.
        suspicious_texts: length of each text field that may identify a person; never the text.
        extension_codes: codes of header extensions.
    """

    shape_zyx: tuple[int, int, int]
    channels: int
    dtype: str
    scaled: bool
    spacing_mm: tuple[float, float, float]
    affine_rows: tuple[float, ...]
    sform_code: int
    qform_code: int
    forms_apart: float | None
    unit: str
    suspicious_texts: Mapping[str, int]
    extension_codes: tuple[int, ...]

    @classmethod
    def of(cls, header: VolumeHeader) -> HeaderFacts:
        """The facts of a checked header."""
        apart = None
        if header.sform is not None and header.qform is not None:
            apart = corner_displacement(header.sform, header.qform, header.shape_zyx)
        elif header.sform is not None and header.qform_code > 0:
            apart = UNUSABLE_QFORM
        return cls(
            shape_zyx=header.shape_zyx,
            channels=header.channels,
            dtype=header.dtype.name,
            scaled=header.scaled,
            spacing_mm=header.spacing_mm,
            affine_rows=tuple(float(value) for value in header.affine.ravel()),
            sform_code=header.sform_code,
            qform_code=header.qform_code,
            forms_apart=apart,
            unit=header.unit,
            suspicious_texts=suspicious(header.texts),
            extension_codes=header.extension_codes,
        )

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) float64."""
        return np.asarray(self.affine_rows, dtype=np.float64).reshape(4, 4)

    @property
    def positioned(self) -> bool:
        """Whether the file says where its voxels lie."""
        return self.sform_code > 0 or self.qform_code > 0


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """Voxels of one channel: digest of the canonical array, smallest and largest value."""

    digest: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """Voxels of a label map: digest of the canonical array, voxels of each value that occurs."""

    digest: str
    voxels: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """All that is known of one file.

    Attributes:
        state: the file's `file_state` when it was read; another state means another file.
        role: what it was read as.
        header: None when the header was refused.
        fault: why the file was refused, or None.
        sha256: of its bytes; None while only the header was read, or when it cannot be read at all.
        channels: one per channel of an image; empty while only the header was read.
        label: of a label map or mask.
    """

    state: tuple[int, int, int, int]
    role: Role
    header: HeaderFacts | None = None
    fault: Finding | None = None
    sha256: str | None = None
    channels: tuple[ChannelFacts, ...] = ()
    label: LabelFacts | None = None

    @property
    def has_pixels(self) -> bool:
        """Whether nothing more would be learnt by reading the file whole."""
        return self.sha256 is not None


@dataclass(frozen=True, slots=True)
class CompositeFacts:
    """A reference painted from masks.

    Attributes:
        inputs: state of every file it was made from, as text; another text means it must be made again.
        label: of the painted label map.
        overlaps: (one value, the other, voxels in both), each pair of masks that share voxels.
        combined_differs: voxels in which the combined label map has another value; None without one.
    """

    inputs: str
    label: LabelFacts
    overlaps: tuple[tuple[int, int, int], ...] = ()
    combined_differs: int | None = None
