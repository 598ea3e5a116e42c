"""The recipe of prepared data: everything that changes a prepared voxel, and its digest.

Two cells whose recipes have one digest share one prepared cache, whatever model, fold or seed they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from segbench.core.hashing import digest_json
from segbench.data.prepared.normalisation import NORMALISATIONS

__all__ = ["PREPARE_VERSION", "PreparationRecipe", "target_spacing"]

#: Raised whenever the numbers of preparation could change (normalisation, resampling, class locations).
PREPARE_VERSION = 2

# Source: MIC-DKFZ/nnUNet experiment_planning/experiment_planners/default_experiment_planner.py.
_ANISOTROPY = 3.0
_THICK_PERCENTILE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationRecipe:
    """How the cases of a dataset become network input.

    Attributes:
        channels: Channel names in the order of the network's input.
        normalisation: One scheme per channel.
        spacing_mm: Target spacing z y x, "median" of the training split, or "native" (each case its own).
        orientation: "canonical" or "stored".
        crop: Cut to the nonzero box.
        dtype: How images are stored.
        dataset_digest: Content digest of the dataset; other bytes under the same name are other data.
        version: `PREPARE_VERSION`.
    """

    channels: tuple[str, ...]
    normalisation: tuple[str, ...]
    spacing_mm: tuple[float, float, float] | Literal["median", "native"]
    orientation: Literal["canonical", "stored"] = "canonical"
    crop: bool = True
    dtype: Literal["float16", "float32"] = "float16"
    dataset_digest: str = ""
    version: int = PREPARE_VERSION

    def __post_init__(self) -> None:
        if len(self.normalisation) != len(self.channels) or not self.channels:
            raise ValueError(f"{len(self.channels)} channels, {len(self.normalisation)} normalisations")
        unknown = sorted(set(self.normalisation) - set(NORMALISATIONS))
        if unknown:
            raise ValueError(f"unknown normalisation {unknown}; known: {', '.join(NORMALISATIONS)}")
        if isinstance(self.spacing_mm, str):
            if self.spacing_mm not in ("median", "native"):
                raise ValueError(
                    f"spacing_mm must be three numbers, 'median' or 'native', not {self.spacing_mm!r}"
                )
        elif len(self.spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ValueError(f"spacing_mm must be three positive numbers, not {self.spacing_mm}")

    @property
    def needs_statistics(self) -> bool:
        """Whether a channel takes its numbers from the training split."""
        return "ct" in self.normalisation

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON; the usual storage goes without saying, so that older digests stand."""
        content = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        if self.dtype == "float16":
            del content["dtype"]
        return content

    def digest(self, training_ids: Iterable[str] = ()) -> str:
        """Sha256 (64 hex) of the recipe; the training split enters only where the numbers depend on it.

        Args:
            training_ids: Cases of the training split.
        """
        content = self.as_dict()
        if self.needs_statistics or self.spacing_mm == "median":
            content["training"] = digest_json(sorted(training_ids))
        return digest_json(content)


def target_spacing(
    spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]
) -> tuple[float, float, float]:
    """Median spacing (z, y, x) of the training cases, with the reference framework's care for thick slices.

    If one axis is more than 3 times coarser than both others and has fewer than a third of their voxels, its
    10th percentile is taken instead of the median, but never a finer spacing than the others have.

    Args:
        spacings: (n, 3) millimetres, canonical axes.
        shapes: (n, 3) voxels of the same cases.

    Source: MIC-DKFZ/nnUNet `determine_fullres_target_spacing`.
    """
    table, sizes = np.asarray(spacings, dtype=np.float64), np.asarray(shapes, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] == 0:
        raise ValueError("the median spacing of no case does not exist")
    target, size = np.median(table, axis=0), np.median(sizes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    thick = target[worst] > _ANISOTROPY * target[others].max()
    few = size[worst] * _ANISOTROPY < size[others].min()
    if thick and few:
        finer = float(np.percentile(table[:, worst], _THICK_PERCENTILE))
        coarsest = float(target[others].max())
        # A hair coarser than the rest keeps it the one low-resolution axis (as the reference does).
        target[worst] = finer if finer >= coarsest else coarsest + 1e-5
    return float(target[0]), float(target[1]), float(target[2])
