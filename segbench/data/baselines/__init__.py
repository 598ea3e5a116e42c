"""Baselines: four predictors that learn next to nothing. A network that does not beat them is broken.

`empty` shows what the policy for empty masks gives away, `mean-atlas` what position alone gives, `intensity`
what brightness alone gives, `atlas-intensity` what both give. No torch, no GPU, no random number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError, unknown_name
from segbench.data.baselines.atlas import LabelAtlas, canonical_grid
from segbench.data.baselines.intensity import LabelGaussians
from segbench.volumes import from_canonical
from segbench.volumes.geometry import canonical_orientation

if TYPE_CHECKING:
    from segbench.data.dataset import Dataset

__all__ = ["BASELINES", "Baseline", "fit"]

ATLAS_FLOOR = 1e-4
_SLAB_VOXELS = 4_000_000

Labels = NDArray[np.uint8 | np.uint16]
LogPrior = Callable[[int, slice], NDArray[np.float32] | np.float32]

BASELINES: dict[str, tuple[bool, bool]] = {
    "empty": (False, False),
    "mean-atlas": (True, False),
    "intensity": (False, True),
    "atlas-intensity": (True, True),
}
"""Each baseline: whether it learns where labels are, and whether it learns how bright they are."""


def fit(name: str, dataset: Dataset, case_ids: Sequence[str]) -> Baseline:
    """A baseline fitted on training cases, ready to predict any case of the same dataset.

    Args:
        name: `empty`, `mean-atlas`, `intensity` or `atlas-intensity`.
        dataset: The opened dataset.
        case_ids: Training cases; their order does not matter.

    Raises:
        SegbenchError: SB101 unknown name, SB311 without a training case, and whatever reading a case refuses.
    """
    if name not in BASELINES:
        raise unknown_name("baseline", name, sorted(BASELINES), listing="segbench list models")
    cases = sorted(set(case_ids))
    if not cases and name != "empty":
        raise SegbenchError("SB311", f"{name} has no training case", path=dataset.root)
    where, bright = BASELINES[name]
    return Baseline(
        dataset,
        LabelAtlas.of(dataset, cases) if where else None,
        LabelGaussians.of(dataset, cases) if bright else None,
    )


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted baseline.

    Attributes:
        dataset: Whose cases it predicts.
        atlas: Where labels are, where it learns that.
        gaussians: How bright they are, where it learns that.
    """

    dataset: Dataset
    atlas: LabelAtlas | None
    gaussians: LabelGaussians | None

    def predict(self, case: str) -> Labels:
        """The label map of a case on its stored grid, (z, y, x)."""
        if self.gaussians is not None:
            return self._by_brightness(case, self.gaussians)
        grid = self.dataset.read_grid(case)
        if self.atlas is None:
            return np.zeros(grid.shape_zyx, dtype=np.uint8)
        # The atlas centred on the grid of the case, in its stored order of axes; no image is read.
        shape, spacing = canonical_grid(self.dataset, case)
        return from_canonical(self.atlas.on_grid(self.atlas.most_frequent, shape, spacing), grid.affine)

    def _by_brightness(self, case: str, gaussians: LabelGaussians) -> Labels:
        """Maximum a posteriori, voxel by voxel; background outside of what the card counts as the body."""
        volume = self.dataset.read_image(case)
        if self.atlas is None:
            image, mask = gaussians.normalised(volume.array)
            priors = gaussians.log_priors
            return _likeliest(gaussians, image, mask, lambda index, slab: np.float32(priors[index]))
        orientation = canonical_orientation(volume.affine)
        image, mask = gaussians.normalised(orientation.apply(volume.array))
        z, y, x = (volume.spacing_mm[axis] for axis in orientation.axes)
        shape = image.shape[-3], image.shape[-2], image.shape[-1]
        log_prior = _log_prior(self.atlas, gaussians.labels, shape, (z, y, x))
        return from_canonical(_likeliest(gaussians, image, mask, log_prior), volume.affine)


def _log_prior(
    atlas: LabelAtlas,
    labels: Sequence[int],
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
) -> LogPrior:
    """The atlas as the prior of each place, never below 1e-4."""
    counts = atlas.on_grid(atlas.counts, shape, spacing)
    rows = {label: index for index, label in enumerate(atlas.labels)}

    def log_prior(index: int, slab: slice) -> NDArray[np.float32]:
        label = labels[index]
        if label == 0:
            share = 1.0 - counts[:, slab].sum(axis=0, dtype=np.float64) / atlas.cases
        else:
            share = counts[rows[label], slab].astype(np.float64) / atlas.cases
        return np.log(np.maximum(share, ATLAS_FLOOR)).astype(np.float32)

    return log_prior


def _likeliest(
    gaussians: LabelGaussians,
    image: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    log_prior: LogPrior,
) -> Labels:
    """Label of the largest log posterior, slab by slab; ties to the lower value, 0 outside the mask."""
    shape = image.shape[1:]
    result = np.zeros(shape, dtype=np.uint8 if max(gaussians.labels) < 256 else np.uint16)
    depth = max(1, _SLAB_VOXELS // (shape[1] * shape[2]))
    for start in range(0, shape[0], depth):
        slab = slice(start, min(start + depth, shape[0]))
        best = np.full((slab.stop - slab.start, *shape[1:]), -np.inf, dtype=np.float32)
        for index, label in enumerate(gaussians.labels):
            score = gaussians.log_density(index, image[:, slab]) + log_prior(index, slab)
            better = score > best
            best[better] = score[better]
            result[slab][better] = label
    if mask is not None:
        result[~mask] = 0
    return result
