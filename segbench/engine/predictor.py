"""Sliding-window prediction of a whole case in memory that does not grow with its length.

Windows run in z order. Only as many planes as a window is thick are held (the ring); a plane that no later
window touches is finished, leaves to the exporter, and makes room. The numbers are those of full
accumulation.

Legend: K outputs, C channels, Z Y X the prepared grid, P the window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from segbench.engine.precision import Precision, autocast
from segbench.engine.windows import Coverage, Plan, Ring, importance_map

__all__ = ["predict_planes"]

Axis = Literal["z", "y", "x"]

# Planes that leave the ring at once: their normalised copy stays small.
_PLANES_AT_ONCE = 8

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
        between: Called after every window, such as `StopRequest.check`; what it raises ends the prediction.

    Raises:
        ValueError: shapes that do not fit, or outputs other than announced.
    """
    members = [networks] if isinstance(networks, nn.Module) else list(networks)
    device = torch.device(device)
    sources = _sources(image, len(members), device)
    if sources[0].ndim != 4 or len(patch) != 3:
        raise ValueError(
            f"image (C, Z, Y, X) and a window of three sizes expected, not {sources[0].shape} and {patch}"
        )
    plan = Plan.of(sources[0].shape[1:], patch, overlap)
    weights = importance_map(plan.window, importance=importance, sigma_scale=sigma_scale, device=device)
    flips = _flips(mirror_axes)
    rings = [Ring(num_outputs, plan, device) for _ in members]
    # One buffer for all planes: many short-lived ones would grow the heap with the case.
    buffers = [
        torch.empty((num_outputs, planes_at_once, *plan.shape[1:]), dtype=torch.float32, device=device)
        for _ in members
    ]
    predictors = [
        _Windows(member, own, plan, num_outputs, flips, window_batch, device, precision)
        for member, own in zip(members, sources, strict=True)
    ]
    coverage = Coverage(plan, weights)
    z_starts = plan.starts[0]
    for z, following in zip(z_starts, [*z_starts[1:], plan.padded[0]], strict=True):
        for ring, predictor in zip(rings, predictors, strict=True):
            for y, x, logits in predictor.layer(z):
                ring.add(z, y, x, logits, weights, 1.0 / len(flips))
                between()
        coverage.add_layer(z)
        # Planes before the next layer of windows are finished; those of the padding are nobody's.
        first, last = max(z, plan.before[0]), min(following, plan.before[0] + plan.shape[0])
        for start in range(first, last, planes_at_once):
            stop = min(start + planes_at_once, last)
            parts = [buffer[:, : stop - start] for buffer in buffers]
            for ring, part in zip(rings, parts, strict=True):
                ring.divide(start, stop, coverage, part)
            yield parts[0] if len(parts) == 1 else _mean(parts, by_sign)
        for ring in (*rings, coverage):
            ring.clear(z, following)


def _sources(image: Image | Sequence[Image], members: int, device: torch.device) -> list[Tensor]:
    """The image of each member as a tensor; for CUDA in page-locked memory, copied without waiting."""
    images = list(image) if isinstance(image, list | tuple) else [cast("Image", image)] * members
    sources = [torch.as_tensor(one) for one in images]
    if (
        not members
        or len(sources) != members
        or any(one.shape[1:] != sources[0].shape[1:] for one in sources)
    ):
        raise ValueError(f"one image of one grid per network expected, {len(sources)} for {members} found")
    pinned = device.type == "cuda"
    return [one.pin_memory() if pinned and not one.is_cuda else one for one in sources]


class _Windows:
    """Runs a network over the windows of one layer, with all their mirrored views."""

    def __init__(
        self,
        network: nn.Module,
        image: Tensor,
        plan: Plan,
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
