"""What a file on disk becomes: voxels, spacing and the way to the scanner's millimetres."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_MAX_BYTES = 8 * 1024**3
"""Largest volume that is read unless the caller says otherwise (``--max-volume``): 8 GiB."""

UNITS_MM: dict[str, float] = {"": 1.0, "m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "nm": 1e-6}
"""Millimetres of each unit in which a header may state lengths; one that states none means millimetres."""

UNIT_NAMES = {
    "m": "metres",
    "cm": "centimetres",
    "mm": "millimetres",
    "um": "micrometres",
    "nm": "nanometres",
}


@dataclass(frozen=True, eq=False)
class Volume:
    """One scan or label map on its stored grid.

    Attributes:
        array: voxels in the order z, y, x (channels first when there are any), C-contiguous. The file's voxel
            (i, j, k) is ``array[k, j, i]``.
        spacing_mm: distance between voxel centres along (z, y, x), millimetres, > 0.
        affine: (4, 4) float64, maps the file's (i, j, k, 1) to RAS+ millimetres; what nibabel calls
            ``affine``, converted where the header states another unit.
            Note the order: its columns belong to i, j, k, so to the *last* axes of ``array`` backwards.
        sform_code: NIfTI code of the stored sform (0 = none), copied on writing so that viewers treat a
            written label map as they treat its scan. 1 for formats that know no such code.
        qform_code: the same for the qform. A file with neither code does not say where it lies: `affine` is
            then a reader's guess.
        unit: in which the file states its lengths, a key of `UNITS_MM`; "" where it does not say. Written
            label maps state theirs in the same.
    """

    array: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    sform_code: int = 1
    qform_code: int = 1
    unit: str = "mm"

    @property
    def positioned(self) -> bool:
        """Whether the file says where its voxels lie."""
        return self.sform_code > 0 or self.qform_code > 0

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Extent of the grid along (z, y, x), without channels."""
        z, y, x = self.array.shape[-3:]
        return int(z), int(y), int(x)

    def with_array(self, array: NDArray[Any]) -> Volume:
        """The same grid with other voxels.

        Raises:
            ValueError: the spatial shape differs.
        """
        if array.shape[-3:] != self.array.shape[-3:]:
            msg = f"array of shape {array.shape} does not lie on a grid of shape {self.shape_zyx}"
            raise ValueError(msg)
        return replace(self, array=array)


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spacing (z, y, x) in millimetres of an (i, j, k) affine: column norms reversed, inf if too large."""
    with np.errstate(over="ignore"):  # the header's check refuses inf, with words
        norms = np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))
    return float(norms[2]), float(norms[1]), float(norms[0])


def is_assumed(
    affine: NDArray[np.float64], shape_zyx: tuple[int, int, int], spacing: tuple[float, float, float]
) -> bool:
    """Whether an affine says no more than `assumed_affine`: written without position it is read again."""
    return bool(np.allclose(affine, assumed_affine(shape_zyx, spacing), rtol=1e-5, atol=0.0))


def assumed_affine(
    shape_zyx: tuple[int, int, int], spacing: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Affine (i, j, k) of a file that does not say where it lies: x to the left, the array's middle at 0.

    Source: nibabel `volumeutils.shape_zoom_affine`, whose guess many tools share.

    Args:
        shape_zyx: voxels along (z, y, x).
        spacing: along (z, y, x), in the unit that the affine shall have.
    """
    steps = np.array([-spacing[2], spacing[1], spacing[0]], dtype=np.float64)
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = -(np.array(shape_zyx[::-1]) - 1) / 2 * steps
    return affine
