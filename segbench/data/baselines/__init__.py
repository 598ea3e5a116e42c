"""Baselines: four predictors that learn next to nothing. A network that does not beat them is broken.

`empty` shows what the policy for empty masks gives away, `mean-atlas` what position alone gives, `intensity`
what brightness alone gives, `atlas-intensity` what both give. No torch, no GPU, no random number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError, unknown_name
from segbench.data.baselines.atlas import LabelAtlas, canonical_grid
from segbench.data.baselines.intensity import LabelGaussians, Normaliser
from segbench.volumes import from_canonical
from segbench.volumes.geometry import canonical_orientation

if TYPE_CHECKING:
    from segbench.data.dataset import Dataset

__all__ = ["BASELINES", "Baseline", "fit"]

ATLAS_FLOOR = 1e-4
_SLAB_VOXELS = 4_000_000

Labels = NDArray[np.uint8 | np.uint16]


class Baseline(Protocol):
    """A fitted baseline."""

    def predict(self, case: str) -> Labels:
        """The label map of a case on its stored grid, (z, y, x)."""
        ...


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
    return BASELINES[name](dataset, cases)


@dataclass(frozen=True, eq=False)
class Empty:
    """Background everywhere."""

    dataset: Dataset

    @classmethod
    def fit(cls, dataset: Dataset, case_ids: Sequence[str]) -> Empty:
        """Nothing to learn."""
        return cls(dataset)

    def predict(self, case: str) -> Labels:
        """Zeros on the stored grid of the case."""
        return np.zeros(self.dataset.read_grid(case).shape_zyx, dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class MeanAtlas:
    """The most frequent training label at each place; no image is read."""

    dataset: Dataset
    atlas: LabelAtlas
    winner: Labels

    @classmethod
    def fit(cls, dataset: Dataset, case_ids: Sequence[str]) -> MeanAtlas:
        """Average the training label maps."""
        atlas = LabelAtlas.of(dataset, case_ids)
        return cls(dataset, atlas, atlas.most_frequent())

    def predict(self, case: str) -> Labels:
        """The atlas centred on the grid of the case, in its stored order of axes."""
        grid = self.dataset.read_grid(case)
        shape, spacing = canonical_grid(self.dataset, case)
        return from_canonical(self.atlas.on_grid(self.winner, shape, spacing), grid.affine)


@dataclass(frozen=True, eq=False)
class Intensity:
    """The likeliest label by brightness and frequency alone."""

    dataset: Dataset
    normaliser: Normaliser
    gaussians: LabelGaussians

    @classmethod
    def fit(cls, dataset: Dataset, case_ids: Sequence[str]) -> Intensity:
        """Moments of each label."""
        normaliser = Normaliser.of(dataset, case_ids)
        return cls(dataset, normaliser, LabelGaussians.of(dataset, case_ids, normaliser))

    def predict(self, case: str) -> Labels:
        """Maximum a posteriori, voxel by voxel; background outside of what the card counts as the body."""
        image, mask = self.normaliser(self.dataset.read_image(case).array)
        priors = self.gaussians.log_priors
        return _likeliest(self.gaussians, image, mask, lambda index, slab: np.float32(priors[index]))


@dataclass(frozen=True, eq=False)
class AtlasIntensity:
    """Position and brightness together: the sum of both log probabilities."""

    dataset: Dataset
    normaliser: Normaliser
    gaussians: LabelGaussians
    atlas: LabelAtlas

    @classmethod
    def fit(cls, dataset: Dataset, case_ids: Sequence[str]) -> AtlasIntensity:
        """Both the atlas and the moments."""
        normaliser = Normaliser.of(dataset, case_ids)
        gaussians = LabelGaussians.of(dataset, case_ids, normaliser)
        return cls(dataset, normaliser, gaussians, LabelAtlas.of(dataset, case_ids))

    def predict(self, case: str) -> Labels:
        """The likeliest label, the atlas as the prior of each place (never below 1e-4)."""
        volume = self.dataset.read_image(case)
        orientation = canonical_orientation(volume.affine)
        image, mask = self.normaliser(orientation.apply(volume.array))
        axes = orientation.axes
        shape = image.shape[-3], image.shape[-2], image.shape[-1]
        spacing = tuple(volume.spacing_mm[axis] for axis in axes)
        counts = self.atlas.on_grid(self.atlas.counts, shape, (spacing[0], spacing[1], spacing[2]))
        rows = {label: index for index, label in enumerate(self.atlas.labels)}
        cases = self.atlas.cases

        def log_prior(index: int, slab: slice) -> NDArray[np.float32]:
            label = self.gaussians.labels[index]
            if label == 0:
                share = 1.0 - counts[:, slab].sum(axis=0, dtype=np.float64) / cases
            else:
                share = counts[rows[label], slab].astype(np.float64) / cases
            return np.log(np.maximum(share, ATLAS_FLOOR)).astype(np.float32)

        likeliest = _likeliest(self.gaussians, image, mask, log_prior)
        return from_canonical(likeliest, volume.affine)


def _likeliest(
    gaussians: LabelGaussians,
    image: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    log_prior: Callable[[int, slice], NDArray[np.float32] | np.float32],
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


BASELINES: dict[str, Callable[[Dataset, Sequence[str]], Baseline]] = {
    "empty": Empty.fit,
    "mean-atlas": MeanAtlas.fit,
    "intensity": Intensity.fit,
    "atlas-intensity": AtlasIntensity.fit,
}
