"""Where each label usually is: the training label maps, centred in millimetres, averaged voxel by voxel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from segbench.volumes.geometry import canonical_orientation

if TYPE_CHECKING:
    from segbench.data.dataset import Dataset

MAX_ENTRIES = 512 * 2**20
"""Largest number of (label, voxel) counts; a larger atlas is made on a coarser grid."""

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class LabelAtlas:
    """How often each foreground label stands at each place of a grid centred at the origin.

    Attributes:
        labels: Foreground label values, ascending.
        counts: (labels, z, y, x) uint16: in how many training cases the label stands there.
        cases: Number of training cases.
        spacing_mm: Of the atlas, z y x; canonical axes.
    """

    labels: tuple[int, ...]
    counts: NDArray[np.uint16]
    cases: int
    spacing_mm: Spacing

    @classmethod
    def of(cls, dataset: Dataset, case_ids: Sequence[str]) -> LabelAtlas:
        """The atlas of the references of these cases; one label map is in memory at a time.

        Its spacing is the median of the training cases, its extent the largest of them, axis by axis.
        """
        labels = dataset.card.foreground
        grids = [canonical_grid(dataset, case) for case in case_ids]
        spacings = np.array([spacing for _, spacing in grids])
        extents = np.array([[n * s for n, s in zip(shape, spacing, strict=True)] for shape, spacing in grids])
        spacing = np.median(spacings, axis=0)
        shape = _shape(extents.max(axis=0), spacing)
        excess = len(labels) * math.prod(shape) / MAX_ENTRIES
        if excess > 1:
            spacing = spacing * excess ** (1 / 3)
            shape = _shape(extents.max(axis=0), spacing)
        counts = np.zeros((len(labels), *shape), dtype=np.uint16)
        steps = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
        for case, (source, source_spacing) in zip(case_ids, grids, strict=True):
            volume = dataset.read_reference(case)
            canonical = canonical_orientation(volume.affine).view(volume.array)
            box, indices = _nearest(shape, steps, source, source_spacing, halves="down")
            moved = canonical[np.ix_(*indices)]
            for index, label in enumerate(labels):
                counts[(index, *box)] += moved == label
        return cls(labels, counts, len(case_ids), steps)

    @cached_property
    def most_frequent(self) -> NDArray[np.uint8 | np.uint16]:
        """The label that stands most often at each place, background included, ties to the lower value."""
        winner = np.zeros(
            self.counts.shape[1:], dtype=np.uint8 if max(self.labels, default=0) < 256 else np.uint16
        )
        best = (self.cases - self.counts.sum(axis=0, dtype=np.int32)).astype(np.int32)
        for label, count in zip(self.labels, self.counts, strict=True):
            better = count > best
            winner[better] = label
            best[better] = count[better]
        return winner

    def on_grid(self, values: NDArray[np.generic], shape: Shape, spacing: Spacing) -> NDArray[np.generic]:
        """Values of the atlas (..., z, y, x) at the nearest place, centred on a canonical grid; 0 outside."""
        box, indices = _nearest(shape, spacing, self._shape, self.spacing_mm, halves="up")
        placed = np.zeros((*values.shape[:-3], *shape), dtype=values.dtype)
        lead = tuple(slice(None) for _ in values.shape[:-3])
        picked = np.take(np.take(np.take(values, indices[0], -3), indices[1], -2), indices[2], -1)
        placed[(*lead, *box)] = picked
        return placed

    @property
    def _shape(self) -> Shape:
        z, y, x = self.counts.shape[1:]
        return z, y, x


def canonical_grid(dataset: Dataset, case: str) -> tuple[Shape, Spacing]:
    """Shape and spacing of a case in canonical axes, from headers alone."""
    header = dataset.read_grid(case)
    axes = canonical_orientation(header.affine).axes
    shape = tuple(header.shape_zyx[axis] for axis in axes)
    spacing = tuple(header.spacing_mm[axis] for axis in axes)
    return (shape[0], shape[1], shape[2]), (spacing[0], spacing[1], spacing[2])


def _shape(extent: NDArray[np.float64], spacing: NDArray[np.float64]) -> Shape:
    z, y, x = (max(1, math.ceil(e / s - 1e-6)) for e, s in zip(extent, spacing, strict=True))
    return z, y, x


def _nearest(
    shape: Shape, spacing: Spacing, source: Shape, source_spacing: Spacing, *, halves: Literal["up", "down"]
) -> tuple[tuple[slice, slice, slice], list[NDArray[np.int64]]]:
    """Where a source grid reaches into a target grid with the same centre, and the nearest source voxels.

    Halves go down on the way into the atlas and up on the way out: a label map with an even number of voxels
    then comes back to where it was, not one voxel further.
    """
    box: list[slice] = []
    indices: list[NDArray[np.int64]] = []
    for axis in range(3):
        offset = (np.arange(shape[axis]) - (shape[axis] - 1) / 2) * spacing[axis]
        place = offset / source_spacing[axis] + (source[axis] - 1) / 2
        # The small number decides 0.5 - 1e-16 and 0.5 alike: rounding of the division must not matter.
        rounded = np.floor(place + 0.5 + 1e-9) if halves == "up" else np.ceil(place - 0.5 - 1e-9)
        at = rounded.astype(np.int64)
        inside = np.flatnonzero((at >= 0) & (at < source[axis]))
        first, last = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
        box.append(slice(first, last))
        indices.append(at[first:last])
    return (box[0], box[1], box[2]), indices
