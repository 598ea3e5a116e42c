"""Where the windows of a case lie, what their voxels weigh, and sums of them as thick as a window.

Legend: K outputs, Z Y X the prepared grid, P the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Coverage", "Plan", "Ring", "importance_map", "window_starts"]

# Smallest weight of a window's corner, as a share of its centre's.
_LEAST_IMPORTANCE = 1e-3


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis: equally spaced, 0 and `length - window` always among them.

    Args:
        length: Voxels of the axis, at least `window`.
        window: Voxels of a window.
        overlap: Smallest share of a window that its neighbour repeats, in [0, 1).
    """
    if length < window:
        raise ValueError(f"an axis of {length} voxels holds no window of {window}")
    steps = math.ceil((length - window) / (window * (1.0 - overlap)) - 1e-9)
    steps = min(steps, length - window)  # windows of a few voxels: never closer than one
    if steps <= 0:
        return [0]
    return [round(i * (length - window) / steps) for i in range(steps + 1)]


def importance_map(
    window: Sequence[int],
    *,
    importance: Literal["gaussian", "constant"] = "gaussian",
    sigma_scale: float = 0.125,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Weights (*window) float32 of a window's voxels, at most 1, floored at 1e-3 of the formula's own scale.

    Source: MONAI `monai.data.utils.compute_importance_map`, to whose weights these are proportional.
    """
    weights = torch.ones((), dtype=torch.float32, device=device)
    for n in window:
        line = torch.ones(n, dtype=torch.float32, device=device)
        if importance == "gaussian":
            offsets = torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2
            line = torch.exp(-0.5 * (offsets / (sigma_scale * n)) ** 2)
        weights = weights[..., None] * line
    weights = weights.clamp_min(max(float(weights.min()), _LEAST_IMPORTANCE))
    return weights / weights.max()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a case is covered: the padding that makes it hold a window, and the windows' starts per axis."""

    shape: tuple[int, ...]
    window: tuple[int, ...]
    before: tuple[int, ...]
    padded: tuple[int, ...]
    starts: tuple[list[int], ...]

    @classmethod
    def of(cls, shape: Sequence[int], patch: Sequence[int], overlap: float) -> Plan:
        """For a prepared grid, a window of three sizes, and the share that windows repeat of each other."""
        window = tuple(int(n) for n in patch)
        missing = [max(0, w - n) for n, w in zip(shape, window, strict=True)]
        padded = tuple(n + m for n, m in zip(shape, missing, strict=True))
        starts = tuple(window_starts(n, w, overlap) for n, w in zip(padded, window, strict=True))
        return cls(tuple(shape), window, tuple(m // 2 for m in missing), padded, starts)


class Ring:
    """Weighted sums (K, P_z, Y, X): plane z of the image lies at z modulo P_z, so nothing is ever moved."""

    def __init__(self, outputs: int, plan: Plan, device: torch.device) -> None:
        self.depth = plan.window[0]
        self.plan = plan
        self.sums = torch.zeros((outputs, self.depth, *plan.padded[1:]), dtype=torch.float32, device=device)

    def add(self, z: int, y: int, x: int, values: Tensor, weights: Tensor, factor: float) -> None:
        """Add one window (K, *window) that begins at (z, y, x), times weights (*window) and a factor."""
        _, height, width = self.plan.window
        for part, at in _wrapped(z, z + self.depth, self.depth):
            place = self.sums[:, at, y : y + height, x : x + width]
            place.addcmul_(values[:, part], weights[part], value=factor)

    def divide(self, start: int, stop: int, divisor: Ring, result: Tensor) -> None:
        """Fill `result` (K, n, Y, X) with planes start..stop over the divisor's, without the padding."""
        _, top, left = self.plan.before
        _, height, width = self.plan.shape
        rows, columns = slice(top, top + height), slice(left, left + width)
        for part, at in _wrapped(start, stop, self.depth):
            torch.div(
                self.sums[:, at, rows, columns], divisor.sums[:, at, rows, columns], out=result[:, part]
            )

    def clear(self, start: int, stop: int) -> None:
        """Make room for the planes that come where start..stop lie."""
        for _, at in _wrapped(start, stop, self.depth):
            self.sums[:, at].zero_()


class Coverage(Ring):
    """Sum of weights per voxel, one plane thick per plane of the ring; never multiplied by the classes.

    All layers of windows have the same windows in the plane, so their weights are summed once.
    """

    def __init__(self, plan: Plan, weights: Tensor) -> None:
        super().__init__(1, plan, weights.device)
        self.layer = torch.zeros(
            (plan.window[0], *plan.padded[1:]), dtype=torch.float32, device=weights.device
        )
        _, height, width = plan.window
        for y in plan.starts[1]:
            for x in plan.starts[2]:
                self.layer[:, y : y + height, x : x + width] += weights

    def add_layer(self, z: int) -> None:
        """Count a layer of windows that begins at plane z."""
        for part, at in _wrapped(z, z + self.depth, self.depth):
            self.sums[0, at] += self.layer[part]


def _wrapped(start: int, stop: int, depth: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of start..stop that lie in one stretch of a ring: where in the piece, where in the ring."""
    done = start
    while done < stop:
        at = done % depth
        length = min(stop - done, depth - at)
        yield slice(done - start, done - start + length), slice(at, at + length)
        done += length
