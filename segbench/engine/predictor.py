"""Sliding-window prediction of a whole case in memory that does not grow with its length.

Windows run in z order. Only as many planes as a window is thick are held (the ring); a plane that no later
window touches is finished, leaves to the exporter, and makes room. The numbers are those of full
accumulation.

Legend: K outputs, C channels, Z Y X the prepared grid, P the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from segbench.engine.export import Labels, PlaneExporter
from segbench.engine.precision import Precision, autocast

__all__ = ["importance_map", "predict_case", "predict_logits", "predict_planes", "window_starts"]

Axis = Literal["z", "y", "x"]

# Planes that leave the ring at once: their normalised copy stays small.
_PLANES_AT_ONCE = 8
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
class _Plan:
    """How a case is covered: the padding that makes it hold a window, and the windows' starts per axis."""

    shape: tuple[int, ...]
    window: tuple[int, ...]
    before: tuple[int, ...]
    padded: tuple[int, ...]
    starts: tuple[list[int], ...]

    @classmethod
    def of(cls, shape: Sequence[int], patch: Sequence[int], overlap: float) -> _Plan:
        window = tuple(int(n) for n in patch)
        missing = [max(0, w - n) for n, w in zip(shape, window, strict=True)]
        padded = tuple(n + m for n, m in zip(shape, missing, strict=True))
        starts = tuple(window_starts(n, w, overlap) for n, w in zip(padded, window, strict=True))
        return cls(tuple(shape), window, tuple(m // 2 for m in missing), padded, starts)


Image = Tensor | npt.NDArray[np.float32]


def predict_planes(
    networks: nn.Module | Sequence[nn.Module],
    image: Image | Sequence[Image],
    *,
    patch: Sequence[int],
    num_outputs: int,
    overlap: float = 0.5,
    mirror_axes: Sequence[Axis] = (),
    window_batch: int = 1,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    importance: Literal["gaussian", "constant"] = "gaussian",
    sigma_scale: float = 0.125,
    by_sign: bool = False,
    planes_at_once: int = _PLANES_AT_ONCE,
    between: Callable[[], None] = lambda: None,
) -> Iterator[Tensor]:
    """Finished planes (K, n, Y, X) float32 in z order, together the whole prepared grid.

    The planes lie in a buffer that the next ones overwrite: copy what must stay.

    One network: its logits, averaged over mirrored views and overlapping windows. Several: the mean over them
    of the softmax of those, or with `by_sign` of the sigmoid less a half, so that the same decision rule
    holds.

    Args:
        networks: One, or the members of an ensemble; in evaluation mode, on `device`.
        image: (C, Z, Y, X) float32; a list of them, one per member, where members were trained on otherwise
            normalised images of one grid.
        patch: (3,) window.
        num_outputs: K.
        overlap: See `window_starts`.
        mirror_axes: Axes of z, y, x; every subset of them is predicted and averaged inside the window.
        window_batch: Windows (mirrored ones count) that go through a network at once.
        device: Where the networks and the ring are.
        precision: Of the networks; the ring is float32.
        importance: Weighting inside a window, see `importance_map`.
        sigma_scale: Width of the Gaussian in windows.
        by_sign: Outputs are independent regions, not classes.
        planes_at_once: Planes handed out together.
        between: Called after every window; what it raises ends the prediction.

    Raises:
        ValueError: shapes that do not fit, or outputs other than announced.
    """
    members = [networks] if isinstance(networks, nn.Module) else list(networks)
    device = torch.device(device)
    images = list(image) if isinstance(image, list | tuple) else [cast("Image", image)] * len(members)
    sources = [_at_hand(one, device) for one in images]
    source = sources[0] if sources else torch.empty(0)
    if source.ndim != 4 or len(patch) != 3 or not members:
        raise ValueError(
            f"image (C, Z, Y, X), a window of three sizes and a network expected, not {source.shape}"
        )
    if len(sources) != len(members) or any(one.shape[1:] != source.shape[1:] for one in sources):
        raise ValueError(
            f"one image of one grid per network expected, {len(sources)} for {len(members)} found"
        )
    plan = _Plan.of(source.shape[1:], patch, overlap)
    weights = importance_map(plan.window, importance=importance, sigma_scale=sigma_scale, device=device)
    flips = _flips(mirror_axes)
    rings = [_Ring(num_outputs, plan, device) for _ in members]
    # One buffer for all planes: many short-lived ones would grow the heap with the case.
    buffers = [
        torch.empty((num_outputs, planes_at_once, *plan.shape[1:]), dtype=torch.float32, device=device)
        for _ in members
    ]
    predictors = [
        _Windows(member, own, plan, num_outputs, flips, window_batch, device, precision)
        for member, own in zip(members, sources, strict=True)
    ]
    coverage = _Coverage(plan, weights)
    z_starts = plan.starts[0]
    for z, following in zip(z_starts, [*z_starts[1:], plan.padded[0]], strict=True):
        for ring, predictor in zip(rings, predictors, strict=True):
            for y, x, logits in predictor.layer(z):
                ring.add(z, y, x, logits, weights, 1.0 / len(flips))
                between()
        coverage.add(z)
        # Planes before the next layer of windows are finished; those of the padding are nobody's.
        first, last = max(z, plan.before[0]), min(following, plan.before[0] + plan.shape[0])
        for start in range(first, last, planes_at_once):
            stop = min(start + planes_at_once, last)
            parts = [buffer[:, : stop - start] for buffer in buffers]
            for ring, part in zip(rings, parts, strict=True):
                ring.divide(start, stop, coverage.ring, part)
            yield parts[0] if len(parts) == 1 else _mean(parts, by_sign)
        for ring in rings:
            ring.clear(z, following)
        coverage.clear(z, following)


def _at_hand(image: Image, device: torch.device) -> Tensor:
    """The image as a tensor; for CUDA in page-locked memory, from where a copy does not wait."""
    tensor = torch.as_tensor(image)
    return tensor.pin_memory() if device.type == "cuda" and not tensor.is_cuda else tensor


def predict_logits(
    networks: nn.Module | Sequence[nn.Module],
    image: Image | Sequence[Image],
    *,
    patch: Sequence[int],
    num_outputs: int,
    **options: Any,
) -> Tensor:
    """All planes at once, (K, Z, Y, X) float32 on the CPU; arguments as `predict_planes`.

    For tests and small cases: `predict_case` never holds this.
    """
    planes = predict_planes(networks, image, patch=patch, num_outputs=num_outputs, **options)
    return torch.cat([part.to("cpu", copy=True) for part in planes], dim=1)


def predict_case(
    networks: nn.Module | Sequence[nn.Module],
    image: Image | Sequence[Image],
    *,
    patch: Sequence[int],
    num_outputs: int,
    shape: Sequence[int] | None = None,
    nearest_axis: int | None = None,
    regions: Sequence[int] | None = None,
    overlap: float = 0.5,
    mirror_axes: Sequence[Axis] = (),
    window_batch: int = 1,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    importance: Literal["gaussian", "constant"] = "gaussian",
    sigma_scale: float = 0.125,
    observe: Callable[[Tensor], None] | None = None,
    between: Callable[[], None] = lambda: None,
) -> Labels:
    """Label map (z, y, x) of a prepared case on the grid of `shape`: predicted and exported plane by plane.

    Args:
        networks: One, or the members of an ensemble.
        image: (C, Z, Y, X) float32, or one per member.
        patch: (3,) window.
        num_outputs: K.
        shape: (3,) grid of the result: `properties["shape_before"]`; the prepared grid itself when None.
        nearest_axis: `properties["nearest_axis_back"]`.
        regions: Label values of the outputs where they are regions, not classes (see `labels_from_logits`).
        overlap: This and what follows: see `predict_planes`.
        mirror_axes: Axes of z, y, x.
        window_batch: Windows at once.
        device: Where the networks are.
        precision: Of the networks.
        importance: Weighting inside a window.
        sigma_scale: Width of the Gaussian in windows.
        observe: Called with every group of finished planes, such as `ProbabilityWriter.push`.
        between: Called after every window, such as `StopRequest.check`: a signal need not wait for the case.
    """
    first = image[0] if isinstance(image, list | tuple) else image
    source = tuple(int(n) for n in first.shape[1:])  # type: ignore[union-attr]
    exporter = PlaneExporter(
        num_outputs, source, source if shape is None else shape, nearest_axis=nearest_axis, regions=regions
    )
    planes = predict_planes(
        networks,
        image,
        patch=patch,
        num_outputs=num_outputs,
        overlap=overlap,
        mirror_axes=mirror_axes,
        window_batch=window_batch,
        device=device,
        precision=precision,
        importance=importance,
        sigma_scale=sigma_scale,
        by_sign=regions is not None,
        between=between,
    )
    for part in planes:
        exporter.push(part)
        if observe is not None:
            observe(part)
    return exporter.labels


class _Ring:
    """Weighted sums (K, P_z, Y, X): plane z of the image lies at z modulo P_z, so nothing is ever moved."""

    def __init__(self, outputs: int, plan: _Plan, device: torch.device) -> None:
        self.depth = plan.window[0]
        self.plan = plan
        self.sums = torch.zeros((outputs, self.depth, *plan.padded[1:]), dtype=torch.float32, device=device)

    def add(self, z: int, y: int, x: int, values: Tensor, weights: Tensor, factor: float) -> None:
        """Add one window (K, *window) that begins at (z, y, x), times weights (*window) and a factor."""
        _, height, width = self.plan.window
        for part, at in _wrapped(z, z + self.depth, self.depth):
            place = self.sums[:, at, y : y + height, x : x + width]
            place.addcmul_(values[:, part], weights[part], value=factor)

    def divide(self, start: int, stop: int, divisor: _Ring, result: Tensor) -> None:
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


class _Coverage:
    """Sum of weights per voxel, one plane thick per plane of the ring; never multiplied by the classes.

    All layers of windows have the same windows in the plane, so their weights are summed once.
    """

    def __init__(self, plan: _Plan, weights: Tensor) -> None:
        self.ring = _Ring(1, plan, weights.device)
        self.layer = torch.zeros(
            (plan.window[0], *plan.padded[1:]), dtype=torch.float32, device=weights.device
        )
        _, height, width = plan.window
        for y in plan.starts[1]:
            for x in plan.starts[2]:
                self.layer[:, y : y + height, x : x + width] += weights

    def add(self, z: int) -> None:
        """Count a layer of windows that begins at plane z."""
        for part, at in _wrapped(z, z + self.ring.depth, self.ring.depth):
            self.ring.sums[0, at] += self.layer[part]

    def clear(self, start: int, stop: int) -> None:
        """Make room."""
        self.ring.clear(start, stop)


class _Windows:
    """Runs a network over the windows of one layer, with all their mirrored views."""

    def __init__(
        self,
        network: nn.Module,
        image: Tensor,
        plan: _Plan,
        outputs: int,
        flips: Sequence[tuple[int, ...]],
        batch: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.network, self.image, self.plan, self.outputs = network, image, plan, outputs
        self.flips, self.batch, self.device = flips, max(1, batch), device
        self.precision: Precision = precision

    def layer(self, z: int) -> Iterator[tuple[int, int, Tensor]]:
        """(y, x, sum of logits over mirrored views) of each window that begins at plane z; (K, *window)."""
        places = [(y, x) for y in self.plan.starts[1] for x in self.plan.starts[2]]
        views = [(place, flip) for place in places for flip in self.flips]
        total: Tensor | None = None
        at_hand: tuple[tuple[int, int], Tensor] | None = None  # a window is brought once for all its views
        for at in range(0, len(views), self.batch):
            chunk = views[at : at + self.batch]
            turned_views: list[Tensor] = []
            for place, flip in chunk:
                if at_hand is None or at_hand[0] != place:
                    at_hand = (place, self._cut(z, *place))
                turned_views.append(_flipped(at_hand[1], flip))
            stacked = torch.stack(turned_views)
            for (place, flip), logits in zip(chunk, self._forward(stacked), strict=True):
                turned = _flipped(logits, flip)
                total = turned if total is None or flip == self.flips[0] else total + turned
                if flip == self.flips[-1]:
                    yield (*place, total)

    def _cut(self, z: int, y: int, x: int) -> Tensor:
        """One window (C, *window) on the device; 0 beyond the image."""
        cut, pads = [], []
        for first, length, before, extent in zip(
            (z, y, x), self.plan.window, self.plan.before, self.plan.shape, strict=True
        ):
            low, high = first - before, first - before + length
            cut.append(slice(max(low, 0), min(high, extent)))
            pads.append((max(-low, 0), max(high - extent, 0)))
        window = self.image[(slice(None), *cut)].to(self.device, torch.float32, non_blocking=True)
        if any(any(pair) for pair in pads):
            window = F.pad(window, [n for pair in reversed(pads) for n in pair])
        return window

    @torch.inference_mode()
    def _forward(self, batch_BCDHW: Tensor) -> Tensor:
        with autocast(self.precision, self.device)():
            outputs = self.network(batch_BCDHW)
        logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
        expected = (batch_BCDHW.shape[0], self.outputs, *self.plan.window)
        if tuple(logits.shape) != expected:
            raise ValueError(f"the network gave {tuple(logits.shape)}, expected {expected}")
        return logits.float()


def _wrapped(start: int, stop: int, depth: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of start..stop that lie in one stretch of a ring: where in the piece, where in the ring."""
    done = start
    while done < stop:
        at = done % depth
        length = min(stop - done, depth - at)
        yield slice(done - start, done - start + length), slice(at, at + length)
        done += length


def _flips(axes: Sequence[Axis]) -> list[tuple[int, ...]]:
    """Every subset of the axes as dimensions of (C, z, y, x), none first."""
    numbers = sorted({"z": 1, "y": 2, "x": 3}[axis] for axis in axes)
    return [subset for count in range(len(numbers) + 1) for subset in combinations(numbers, count)]


def _flipped(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return x.flip(list(dims)) if dims else x


def _mean(members: Sequence[Tensor], by_sign: bool) -> Tensor:
    """Mean probability of an ensemble, in float32."""
    probabilities = [member.sigmoid() - 0.5 if by_sign else member.softmax(dim=0) for member in members]
    return torch.stack(probabilities).mean(dim=0)
