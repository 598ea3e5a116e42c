"""From a network's logits to labels on the grid of the image: exact, and without the dense tensor.

Dense export makes K classes x image voxels of floats, which exhausts memory elsewhere. Here a voxel whose
2 x 2 x 2 source corners agree takes their label (an interpolated value is a convex combination, so the class
that is largest at every corner is largest between them) and only the others, about 1 %, are interpolated.
Logits may come plane by plane (`PlaneExporter`), so that nothing larger than the label map is ever whole.

The dense definition: `torch.nn.functional.interpolate(mode="trilinear", align_corners=False)`, then argmax,
the lowest class of equals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segbench.volumes.geometry import Orientation
from segbench.volumes.linear import AxisTaps, decide_labels
from segbench.volumes.resample import nearest_index

__all__ = ["PlaneExporter", "export_grid", "labels_from_logits", "to_stored_grid"]

Labels = npt.NDArray[np.uint8 | np.uint16]
Shape = Sequence[int]

# Logits up to which plain torch is quicker than compiling (once per installation, seconds).
_SMALL = 2**24


def labels_from_logits(
    logits: Tensor | npt.NDArray[np.float32],
    shape: Shape,
    *,
    nearest_axis: int | None = None,
    regions: Sequence[int] | None = None,
    block: int = 262_144,
) -> Labels:
    """Label map (numpy uint8, or uint16 when a label exceeds 255) on the grid of `shape`.

    Args:
        logits: (K, z, y, x) float32 on the prepared grid; a numpy array or a tensor on any device.
        shape: (3,) voxels of the result.
        nearest_axis: Axis (0..2) whose source plane is picked, not interpolated.
        regions: K label values: where logit k > 0 that label is written, later k over earlier, elsewhere 0.
            None: the class with the largest logit, the lowest of equals.
        block: Voxels interpolated at once where the logits lie on an accelerator.

    Raises:
        ValueError: not (K, z, y, x), or not one label per region.
    """
    if logits.ndim != 4:
        raise ValueError(f"logits must be (K, z, y, x), not {logits.ndim}-dimensional")
    source = tuple(int(n) for n in logits.shape[1:])
    exporter = PlaneExporter(
        logits.shape[0], source, shape, nearest_axis=nearest_axis, regions=regions, block=block
    )
    exporter.push(torch.as_tensor(logits))
    return exporter.labels


class PlaneExporter:
    """Turns planes of logits, given in z order, into the label map; holds one plane of logits between calls.

    Args:
        classes: K.
        source: (3,) grid of the logits.
        shape: (3,) grid of the labels.
        nearest_axis, regions, block: See `labels_from_logits`.

    Attributes:
        labels: The label map, complete once all planes were pushed.
        interpolated: Voxels that needed interpolation so far.
    """

    def __init__(
        self,
        classes: int,
        source: Shape,
        shape: Shape,
        *,
        nearest_axis: int | None = None,
        regions: Sequence[int] | None = None,
        block: int = 262_144,
    ) -> None:
        target = tuple(int(n) for n in shape)
        if len(source) != 3 or len(target) != 3 or min(*source, *target) < 1:
            raise ValueError(f"grids must be three sizes of at least 1, not {tuple(source)} and {target}")
        if nearest_axis not in (None, 0, 1, 2):
            raise ValueError(f"nearest_axis must be 0, 1 or 2, not {nearest_axis}")
        if regions is not None and len(regions) != classes:
            raise ValueError(f"{classes} logits need {classes} region labels, not {len(regions)}")
        self.by_sign = regions is not None
        values = list(range(classes)) if regions is None else [0, *(int(value) for value in regions)]
        self.table = np.asarray(values, dtype=np.uint8 if max(values) < 256 else np.uint16)
        self.labels: Labels = np.zeros(target, dtype=self.table.dtype)
        self.interpolated = 0
        self.block = block
        self._depth = int(source[0])
        # A small case on its own grid needs no interpolation, and is done before numba has compiled anything.
        self._plain = tuple(source) == target and classes * math.prod(target) <= _SMALL
        self._taps = tuple(
            AxisTaps.single(nearest_index(n_in, n_out))
            if axis == nearest_axis
            else AxisTaps.linear_float32(n_in, n_out)
            for axis, (n_in, n_out) in enumerate(zip(source, target, strict=True))
        )
        self._received = 0  # planes pushed so far
        self._done = 0  # planes of labels that are finished
        self._slab: Tensor | None = None  # the last plane, which the next ones may need, and room for them
        self._holds = False

    def push(self, planes: Tensor) -> None:
        """Take the next planes (K, n, y, x) and finish every label plane they complete."""
        count = planes.shape[1]
        if self._received + count > self._depth:
            raise ValueError(f"{self._received + count} planes pushed, {self._depth} expected")
        slab, first = self._joined(planes.detach()), self._received - int(self._holds)
        self._received += count
        ready = int(np.searchsorted(self._taps[0].upper, self._received))
        if ready > self._done:
            self._finish(slab, first, slice(self._done, ready))
            self._done = ready
        self._hold(slab)

    def _joined(self, planes: Tensor) -> Tensor:
        """The held plane and the new ones, in a buffer that is used again; all planes at once as they are."""
        if not self._holds and planes.shape[1] == self._depth:
            return planes.to(torch.float32)
        length = int(self._holds) + planes.shape[1]
        if self._slab is None or self._slab.shape[1] < length:
            grown = planes.new_empty((planes.shape[0], max(length, planes.shape[1] + 1), *planes.shape[2:]))
            grown = grown.to(torch.float32)
            if self._holds and self._slab is not None:
                grown[:, 0] = self._slab[:, 0]
            self._slab = grown
        self._slab[:, int(self._holds) : length] = planes
        return self._slab[:, :length]

    def _hold(self, slab: Tensor) -> None:
        """Keep the last plane where the next ones will find it."""
        if self._received < self._depth and self._slab is not None:
            self._slab[:, 0] = slab[:, -1].clone()
            self._holds = True

    def _finish(self, slab: Tensor, first: int, planes: slice) -> None:
        z = self._taps[0]
        along_z = AxisTaps(z.lower[planes] - first, z.upper[planes] - first, z.weight[planes])
        taps = (along_z, *self._taps[1:])
        result = self.labels[planes]
        if self._plain:
            result[...] = self.table[_codes(slab[:, along_z.lower], self.by_sign).cpu().numpy()]
        elif slab.device.type == "cpu":
            self.interpolated += decide_labels(slab.numpy(), taps, self.table, result, by_sign=self.by_sign)
        else:
            decided, count = _decide_on_device(slab, taps, self.by_sign, self.block)
            result[...] = self.table[decided.cpu().numpy()]
            self.interpolated += count


def _decide_on_device(
    slab: Tensor, taps: Sequence[AxisTaps], by_sign: bool, block: int
) -> tuple[Tensor, int]:
    """Codes (z, y, x) of the interpolated logits by torch operations, and how many voxels needed that."""
    device = slab.device
    lower = [torch.from_numpy(axis.lower).to(device) for axis in taps]
    upper = [torch.from_numpy(axis.upper).to(device) for axis in taps]
    weight = [torch.from_numpy(axis.weight).to(device, torch.float32) for axis in taps]
    codes = _codes(slab, by_sign)
    shape = tuple(int(axis.numel()) for axis in lower)
    result = torch.empty(shape, dtype=codes.dtype, device=device)
    interpolated = 0
    # Plane by plane: the corner maps are then no larger than a plane.
    for z in range(shape[0]):
        near, far = codes[lower[0][z]], codes[upper[0][z]]
        plane = torch.where(near == far, near, -1)
        rows = torch.where(plane[lower[1]] == plane[upper[1]], plane[lower[1]], -1)
        agreed = torch.where(rows[:, lower[2]] == rows[:, upper[2]], rows[:, lower[2]], -1)
        mixed = torch.nonzero(agreed < 0)
        interpolated += mixed.shape[0]
        for piece in mixed.split(block):
            y, x = piece[:, 0], piece[:, 1]
            values = _interpolate(slab, lower, upper, weight, z, y, x)
            agreed[y, x] = _codes(values, by_sign)
        result[z] = agreed
    return result.long(), interpolated


def _codes(values: Tensor, by_sign: bool) -> Tensor:
    """Winning class along the first axis, the lowest of equals; by sign, 1 + the last positive, or 0."""
    if not by_sign:
        return values.argmax(dim=0).to(torch.int32)  # documented: the first of several maxima
    order = torch.arange(1, values.shape[0] + 1, device=values.device, dtype=torch.int32)
    return torch.where(values > 0, order.reshape(-1, *[1] * (values.ndim - 1)), 0).amax(dim=0)


def _interpolate(
    slab: Tensor, lower: list[Tensor], upper: list[Tensor], weight: list[Tensor], z: int, y: Tensor, x: Tensor
) -> Tensor:
    """Logits (K, N) at N places of one output plane, along z, then y, then x."""
    tz, ty, tx = weight[0][z], weight[1][y], weight[2][x]

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        near, far = slab[:, lower[0][z], rows, columns], slab[:, upper[0][z], rows, columns]
        return near * (1 - tz) + far * tz

    low = at(lower[1][y], lower[2][x]) * (1 - ty) + at(upper[1][y], lower[2][x]) * ty
    high = at(lower[1][y], upper[2][x]) * (1 - ty) + at(upper[1][y], upper[2][x]) * ty
    return low * (1 - tx) + high * tx


def export_grid(properties: Mapping[str, Any]) -> tuple[tuple[int, ...], int | None]:
    """Shape of the cropped image before preparation resampled it, and the axis to pick planes along."""
    return tuple(properties["shape_before"]), properties["nearest_axis_back"]


def to_stored_grid(
    labels: Labels, properties: Mapping[str, Any], *, values: Sequence[int] | None = None
) -> Labels:
    """A label map of the cropped image in canonical axes, back in the stored grid: pasted, then turned.

    Args:
        labels: (z, y, x) of `properties["shape_before"]`.
        properties: The case's.
        values: Label value of each class; None leaves classes as they are.
    """
    if values is not None:
        table = np.asarray(values)
        labels = table.astype(np.uint8 if table.max() < 256 else np.uint16)[labels]
    whole = np.zeros(tuple(properties["canonical_shape"]), dtype=labels.dtype)
    whole[tuple(slice(start, stop) for start, stop in properties["crop_box"])] = labels
    axes, flips = properties["orientation"]["axes"], properties["orientation"]["flips"]
    turn = Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
    return turn.inverse.apply(whole)
