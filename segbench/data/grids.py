"""The files of one case lie on one grid: reordered where only the order of axes differs, never resampled."""

from __future__ import annotations

from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.volumes import Volume
from segbench.volumes.geometry import compare_geometry, reorient, unit_mend
from segbench.volumes.header import VolumeHeader


def on_grid_of(
    first: Volume | VolumeHeader, other: Volume, *, case: str | None = None, path: Path | None = None
) -> Volume:
    """A volume in the order of axes of the first of its case: the same voxels at the same places.

    Raises:
        SegbenchError: SB307 the shape differs, SB308 the spacing, SB309 origin or direction.
    """
    compared = compare_geometry(first, other)
    if compared.same_grid:
        return other
    if compared.orientation is not None:
        return reorient(other, compared.orientation)
    mend = None
    if not compared.shape_equal:
        code, message = "SB307", "shapes (z, y, x) differ"
        expected, found = str(first.shape_zyx), str(other.shape_zyx)
    elif not compared.spacing_equal:
        code, message = "SB308", "spacings (z, y, x) in mm differ"
        expected, found = str(first.spacing_mm), str(other.spacing_mm)
        mend = unit_mend(first, other)
    else:
        code, message = "SB309", "origin or direction differ"
        expected, found = "the same place", f"{compared.displacement_voxels:.3g} voxels apart"
    who = "files of one case" if case is None else f"case {case}"
    raise SegbenchError(
        code, f"{who}: {message}", path=path, case=case, expected=expected, found=found, mend=mend
    )
