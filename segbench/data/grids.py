"""The files of one case lie on one grid; nothing is resampled to make them fit."""

from __future__ import annotations

from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.volumes.geometry import GridLike, compare_geometry, unit_mend


def require_same_grid(
    first: GridLike, other: GridLike, *, case: str | None = None, path: Path | None = None
) -> None:
    """Refuse a file that lies on another grid than the first of its case.

    Raises:
        SegbenchError: SB307 the shape differs, SB308 the spacing, SB309 origin or direction.
    """
    compared = compare_geometry(first, other)
    if compared.same_grid:
        return
    mend = None
    if compared.equal_after_reorientation:
        # Voxel values would still correspond, but a dataset whose files disagree is asked to say so.
        mend = "the grids are equal after reorientation: write both files in the same order of axes"
    if not compared.shape_equal:
        code, message = "SB307", "shapes (z, y, x) differ"
        expected, found = str(first.shape_zyx), str(other.shape_zyx)
    elif not compared.spacing_equal:
        code, message = "SB308", "spacings (z, y, x) in mm differ"
        expected, found = str(first.spacing_mm), str(other.spacing_mm)
        mend = mend or unit_mend(first, other)
    else:
        code, message = "SB309", "origin or direction differ"
        expected, found = "the same place", f"{compared.displacement_voxels:.3g} voxels apart"
    who = "files of one case" if case is None else f"case {case}"
    raise SegbenchError(
        code, f"{who}: {message}", path=path, case=case, expected=expected, found=found, mend=mend
    )
