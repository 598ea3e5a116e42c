"""The patch that fits a dataset: as large as its scans where they are small, never larger than `standard`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.data.dataset import Dataset
from segbench.data.prepared.case import load_case, prepared_shape
from segbench.data.prepared.recipe import target_spacing
from segbench.volumes import read_header, read_volume
from segbench.volumes.geometry import canonical_orientation

STEP, LEAST, MOST = 32, 64, 128
"""A multiple of 32 and at least 64, which all but `waveformer` take, and at most 128, as in `standard`."""
LOOKED_INTO = 8
"""Cases whose voxels are read to learn how much cropping to the nonzero box takes away."""


def fitting_patch(dataset: Dataset) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    """(patch, median shape) in voxels z, y, x, cropped and at the spacing of training; None without a case.

    A case that cannot be read says nothing; verification names it.
    """
    grids: list[tuple[str, tuple[int, ...], tuple[float, ...]]] = []
    for case in dataset.case_ids:
        try:
            image = next(iter(dataset.case(case).images.values()))
            header = read_header(image, max_bytes=dataset.max_bytes, allow_channels=True)
        except SegbenchError:
            continue
        axes = canonical_orientation(header.affine).axes
        shape = tuple(header.shape_zyx[axis] for axis in axes)
        grids.append((case, shape, tuple(header.spacing_mm[axis] for axis in axes)))
    if not grids:
        return None
    card = dataset.card.geometry.spacing_mm
    spacing = card or target_spacing([s for _, _, s in grids], [n for _, n, _ in grids])
    kept = _share_kept(dataset, [case for case, _, _ in grids])
    sizes = [np.multiply(prepared_shape(shape, own, spacing), kept) for _, shape, own in grids]
    z, y, x = (max(1, round(float(size))) for size in np.median(sizes, axis=0))
    return (_fit(z), _fit(y), _fit(x)), (z, y, x)


def _fit(size: int) -> int:
    return min(MOST, max(LEAST, -(-size // STEP) * STEP))


def _share_kept(dataset: Dataset, cases: Sequence[str]) -> NDArray[np.float64]:
    """Median share of each axis that is left after cropping, of a few cases from all over the list."""
    chosen = cases[:: max(1, len(cases) // LOOKED_INTO)][:LOOKED_INTO]
    shares: list[NDArray[np.float64]] = []
    for case in chosen:
        paths, most = dict.fromkeys(dataset.case(case).images.values()), dataset.max_bytes
        try:
            raw = load_case(
                [read_volume(path, raw=True, allow_channels=True, max_bytes=most) for path in paths]
            )
        except SegbenchError:
            continue
        shares.append(np.divide(raw.images[0].shape, raw.properties["canonical_shape"]))
    return np.median(shares, axis=0) if shares else np.ones(3)
