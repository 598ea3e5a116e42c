"""Random transforms of training patches, as batched torch functions that run where the training runs.

`augment` is a pure function of its arguments: what happens to each sample was drawn beforehand
(`augment_parameters`), and noise comes from a generator seeded by the sample's counters.

Legend: B batch, C channels, D H W voxels (z y x).

Source: MIC-DKFZ/batchgeneratorsv2 0.3.6, whose transforms these are, in the order of nnU-Net's
`get_training_transforms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from segbench.data.patches.augment_parameters import AugmentationSettings, Chosen, choose
from segbench.data.patches.sampling import SamplePlan
from segbench.data.patches.spatial import centre_crop, transform_image, transform_labels
from segbench.data.random import counter_seed

__all__ = ["AugmentationSettings", "augment"]

_EPSILON = 1e-7
_BLUR_TRUNCATION = 3.0


def augment(
    image: Tensor | Sequence[Tensor],
    labels: Tensor | Sequence[Tensor],
    plans: Sequence[SamplePlan],
    settings: AugmentationSettings | None = None,
    *,
    patch: Sequence[int] | None = None,
    ignore_label: int | None = None,
    noise_on_cpu: bool = False,
) -> tuple[Tensor, Tensor]:
    """The batch after the random transforms of its plans.

    Args:
        image: (B, C, D, H, W), or per sample (C, D, H, W), floats, at least as large as the patch and
            centred on it.
        labels: (B, D, H, W), or per sample (D, H, W), integers on the same grid.
        plans: One per sample.
        settings: Which transforms, how often, how strong; the nnU-Net default set when None.
        patch: (3,) size of the result; None: the patch in the plans (a `PatchLoader` notes it), else the
            input's.
        ignore_label: Label of what a rotated patch reaches outside its crop, 0 when None.
        noise_on_cpu: Draw noise on the CPU, so that it is the same on every device.

    Returns:
        New (B, C, *patch) float32 and (B, *patch) tensors; the arguments are not changed.

    Raises:
        ValueError: shapes that do not belong together.
    """
    settings = AugmentationSettings() if settings is None else settings
    if patch is None:
        patch = plans[0].patch if plans and plans[0].patch is not None else image[0].shape[1:]
    size = tuple(int(n) for n in patch)
    _check_shapes(list(image), list(labels), len(plans), size)
    device, channels = image[0].device, image[0].shape[0]
    kind = reduce(torch.promote_types, [each.dtype for each in labels])
    new_image = torch.empty((len(plans), channels, *size), dtype=torch.float32, device=device)
    new_labels = torch.empty((len(plans), *size), dtype=kind, device=device)
    for b, plan in enumerate(plans):
        chosen = choose(plan.augmentation, settings, patch=size, channels=channels)
        if chosen.matrix is None:
            new_image[b], new_labels[b] = centre_crop(image[b], size), centre_crop(labels[b], size)
        else:
            crop = _in_extent(image[b].float(), plan.extent, 0)
            new_image[b] = transform_image(crop, chosen.matrix, size, order=settings.image_order)
            outside = ignore_label or 0
            maps = _in_extent(labels[b], plan.extent, outside)
            new_labels[b] = transform_labels(maps, chosen.matrix, size, outside=outside)
        _change_intensities(new_image[b], chosen, plan, settings, noise_on_cpu)
        if chosen.mirror:
            new_image[b] = new_image[b].flip([axis + 1 for axis in chosen.mirror])
            new_labels[b] = new_labels[b].flip(list(chosen.mirror))
    return new_image, new_labels


def _check_shapes(
    images: Sequence[Tensor], labels: Sequence[Tensor], count: int, size: tuple[int, ...]
) -> None:
    """ValueError where images, labels and plans do not belong together, or hold no patch."""
    pairs = list(zip(images, labels, strict=False))
    fit = all(one.ndim == 4 and two.shape == one.shape[1:] for one, two in pairs)
    if not fit or not len(images) == len(labels) == count:
        shapes = f"{[tuple(one.shape) for one in images]}, {[tuple(one.shape) for one in labels]}"
        raise ValueError(
            f"image (B, C, D, H, W), labels (B, D, H, W) and B plans expected, not {shapes} and {count} plans"
        )
    for one in images:
        if any(n < p for n, p in zip(one.shape[1:], size, strict=True)):
            raise ValueError(f"a crop of {tuple(one.shape[1:])} voxels does not hold a patch of {size}")


def _in_extent(x: Tensor, extent: tuple[int, int, int] | None, outside: int) -> Tensor:
    """The crop in the middle of the larger one that positions are counted in.

    Nothing of what is added is looked at; but a position is the sum of an offset and the centre, and rounds
    as the centre is large.
    """
    if extent is None or tuple(x.shape[-3:]) == extent:
        return x
    larger = torch.full((*x.shape[:-3], *extent), outside, dtype=x.dtype, device=x.device)
    centre_crop(larger, x.shape[-3:])[...] = x
    return larger


def _change_intensities(
    x_CDHW: Tensor, chosen: Chosen, plan: SamplePlan, settings: AugmentationSettings, noise_on_cpu: bool
) -> None:
    """Noise to gamma, in place and in order."""
    if chosen.noise is not None:
        _add_noise(x_CDHW, chosen.noise, plan, noise_on_cpu)
    for channel, sigmas in enumerate(chosen.blur):
        if sigmas is not None:
            _blur(x_CDHW[channel], sigmas)
    for channel, factor in enumerate(chosen.brightness):
        x_CDHW[channel] *= factor
    for channel, factor in enumerate(chosen.contrast):
        _contrast(x_CDHW[channel], factor)
    for channel, zoom in enumerate(chosen.low_resolution):
        if zoom is not None:
            _low_resolution(x_CDHW[channel], zoom, chosen.flat, settings.image_order)
    for channel, exponent in enumerate(chosen.gamma_inverted):
        _gamma(x_CDHW[channel], exponent, inverted=True)
    for channel, exponent in enumerate(chosen.gamma):
        _gamma(x_CDHW[channel], exponent, inverted=False)


def _add_noise(x_CDHW: Tensor, std: float, plan: SamplePlan, on_cpu: bool) -> None:
    device = torch.device("cpu") if on_cpu else x_CDHW.device
    generator = torch.Generator(device=device)
    generator.manual_seed(counter_seed(plan.seed, "noise", plan.step, plan.index))
    noise = torch.empty(x_CDHW.shape, device=device).normal_(0.0, std, generator=generator)
    x_CDHW += noise.to(x_CDHW.device, non_blocking=True)


def _blur(x_DHW: Tensor, sigmas: Sequence[float]) -> None:
    """Gaussian, reflected at the border, as shifted sums (one-channel 3D convolution is 20 times slower)."""
    for axis, sigma in enumerate(sigmas):
        length = x_DHW.shape[axis]
        radius = min(max(1, round(_BLUR_TRUNCATION * sigma)), length - 1)
        if radius < 1:
            continue
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel = [float(w) for w in weights / weights.sum()]
        before = x_DHW.narrow(axis, 1, radius).flip(axis)
        after = x_DHW.narrow(axis, length - 1 - radius, radius).flip(axis)
        padded = torch.cat([before, x_DHW, after], dim=axis)
        torch.mul(padded.narrow(axis, radius, length), kernel[radius], out=x_DHW)
        for shift in range(radius):
            # The kernel is symmetric: two shifted copies share a weight.
            x_DHW.add_(padded.narrow(axis, shift, length), alpha=kernel[shift])
            x_DHW.add_(padded.narrow(axis, 2 * radius - shift, length), alpha=kernel[shift])


def _contrast(x_DHW: Tensor, factor: float) -> None:
    """Stretch about the mean, clipped to the range it had."""
    low, high = torch.aminmax(x_DHW)
    mean = x_DHW.mean()
    x_DHW.mul_(factor).add_(mean * (1.0 - factor)).clamp_(low, high)


def _low_resolution(x_DHW: Tensor, zoom: float, flat: bool, order: int) -> None:
    """Down by nearest neighbour, up again by interpolation; the thick axis of a flat patch stays."""
    shape = x_DHW.shape
    small = [n if flat and axis == 0 else max(1, round(n * zoom)) for axis, n in enumerate(shape)]
    down = F.interpolate(x_DHW[None, None], small, mode="nearest-exact")
    x_DHW.copy_(upsample(down[0, 0], shape, order))


def upsample(x_DHW: Tensor, shape: Sequence[int], order: int) -> Tensor:
    """Linear, or cubic by the same operators as preparation (order 3), clipped to the range it had."""
    if order == 1:
        return F.interpolate(x_DHW[None, None], list(shape), mode="trilinear", align_corners=False)[0, 0]
    from segbench.volumes.resample import axis_operator

    low, high = torch.aminmax(x_DHW)
    for axis, n in enumerate(shape):
        if x_DHW.shape[axis] != n:
            operator = torch.from_numpy(axis_operator(x_DHW.shape[axis], n, 3).copy())
            operator = operator.to(x_DHW.device, x_DHW.dtype, non_blocking=True)
            moved = torch.movedim(x_DHW, axis, -1) @ operator.T
            x_DHW = torch.movedim(moved, -1, axis)
    return x_DHW.clamp(low, high)


def _gamma(x_DHW: Tensor, exponent: float, *, inverted: bool) -> None:
    """Power of the range scaled to [0, 1], mean and standard deviation restored."""
    if inverted:
        x_DHW.neg_()
    low, high = torch.aminmax(x_DHW)
    extent = high - low
    x_DHW.sub_(low)
    mean, std = _moments(x_DHW)
    # log and exp are vectorised, pow is not: a third of the time. log(0) * exponent is -inf, its exp 0.
    x_DHW.div_(extent.clamp_min(_EPSILON)).log_().mul_(exponent).exp_().mul_(extent)
    mean_now, std_now = _moments(x_DHW)
    scale = std / std_now.clamp_min(_EPSILON)
    x_DHW.mul_(scale).add_(mean - mean_now * scale + low)
    if inverted:
        x_DHW.neg_()


def _moments(x_DHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of values that begin at 0; one product in place of Welford's slow loop."""
    flat = x_DHW.reshape(-1)
    mean = flat.mean()
    square = torch.dot(flat, flat) / flat.numel() - mean * mean
    return mean, (square * (flat.numel() / max(flat.numel() - 1, 1))).clamp_min(0.0).sqrt()
