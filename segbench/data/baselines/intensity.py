"""How bright each label usually is: one Gaussian per label over normalised, slightly smoothed channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.data.prepared.normalisation import (
    channel_statistics,
    foreground_intensities,
    nonzero_mask,
    normalise,
)

if TYPE_CHECKING:
    from segbench.data.dataset import Dataset

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Statistics = tuple[Mapping[str, float] | None, ...]

SMOOTHING_VOXELS = 1.0
_RIDGE = 1e-4
"""Added to each variance (of normalised intensities), so that a constant label has a Gaussian at all."""


@dataclass(frozen=True, eq=False)
class LabelGaussians:
    """One Gaussian per label that occurs in training, background included.

    Attributes:
        labels: Label values, ascending.
        means: (labels, C).
        precisions: (labels, C, C), inverse covariances.
        log_norms: (labels,), log of the density's factor.
        log_priors: (labels,), log share of the voxels.
        schemes: The card's normalisation of each channel.
        statistics: What `ct` needs of the training cases, by channel; None elsewhere.
    """

    labels: tuple[int, ...]
    means: NDArray[np.float64]
    precisions: NDArray[np.float64]
    log_norms: NDArray[np.float64]
    log_priors: NDArray[np.float64]
    schemes: tuple[str, ...]
    statistics: Statistics

    @classmethod
    def of(cls, dataset: Dataset, case_ids: Sequence[str]) -> LabelGaussians:
        """Moments over all training voxels that count; one case is in memory at a time."""
        schemes, statistics = dataset.card.channel_normalisation, _statistics(dataset, case_ids)
        values = (0, *dataset.card.foreground)
        channels = len(dataset.card.channels.order)
        count = np.zeros(len(values))
        total = np.zeros((len(values), channels))
        product = np.zeros((len(values), channels, channels))
        for case in case_ids:
            image, mask = _normalised(dataset.read_image(case).array, schemes, statistics)
            labels = dataset.read_reference(case).array
            flat = image.reshape(channels, -1)
            where = labels.reshape(-1)
            for index, value in enumerate(values):
                chosen = where == value if mask is None else (where == value) & mask.reshape(-1)
                picked = flat[:, chosen].astype(np.float64)
                count[index] += picked.shape[1]
                total[index] += picked.sum(axis=1)
                for a in range(channels):
                    for b in range(a, channels):
                        product[index, a, b] += float((picked[a] * picked[b]).sum())
        product += np.triu(product, 1).transpose(0, 2, 1)
        seen = np.flatnonzero(count > 0)
        means = total[seen] / count[seen, None]
        covariances = product[seen] / count[seen, None, None] - means[:, :, None] * means[:, None, :]
        covariances += _RIDGE * np.eye(channels)
        log_dets = np.linalg.slogdet(covariances)[1]
        return cls(
            labels=tuple(values[index] for index in seen),
            means=means,
            precisions=np.linalg.inv(covariances).astype(np.float64),
            log_norms=-0.5 * (channels * np.log(2 * np.pi) + log_dets),
            log_priors=np.log(count[seen] / count.sum()),
            schemes=schemes,
            statistics=statistics,
        )

    def normalised(self, image: Float32) -> tuple[Float32, Mask | None]:
        """Normalised and smoothed channels (C, z, y, x), and the voxels that count (None: all)."""
        return _normalised(image, self.schemes, self.statistics)

    def log_density(self, index: int, image: Float32) -> Float32:
        """Log density of the label at `index` for channels (C, ...)."""
        centred = [image[c] - np.float32(self.means[index, c]) for c in range(image.shape[0])]
        squared = np.zeros(image.shape[1:], dtype=np.float32)
        for a, first in enumerate(centred):
            for b, second in enumerate(centred[a:], start=a):
                weight = np.float32(self.precisions[index, a, b] * (1.0 if a == b else 2.0))
                squared += weight * first * second
        return np.float32(self.log_norms[index]) - np.float32(0.5) * squared


def _statistics(dataset: Dataset, case_ids: Sequence[str]) -> Statistics:
    """What `ct` needs; the training images are read only when a channel is that."""
    schemes = dataset.card.channel_normalisation
    if "ct" not in schemes:
        return (None,) * len(schemes)
    samples: list[Float32] = []
    for case in case_ids:
        image, labels = dataset.read_image(case), dataset.read_reference(case)
        samples.append(foreground_intensities(list(image.array), labels.array, case=case))
    return tuple(channel_statistics(samples))


def _normalised(
    image: Float32, schemes: Sequence[str], statistics: Statistics
) -> tuple[Float32, Mask | None]:
    mask = nonzero_mask(list(image)) if "zscore-nonzero" in schemes else None
    smooth = np.empty_like(image)
    for index, (channel, scheme, known) in enumerate(zip(image, schemes, statistics, strict=True)):
        values = normalise(channel, scheme, statistics=known, mask=mask)
        ndimage.gaussian_filter(values, SMOOTHING_VOXELS, output=smooth[index], truncate=3)
    return smooth, mask
