"""Augmentation of training patches against batchgeneratorsv2: CPU seconds per patch, and the same statistics.

    python benchmarks/augment.py [--patch 128,128,128] [--channels 1] [--patches 60] [--draws 150]
    [--no-check]

Both sides apply nnU-Net's default set (`get_training_transforms`) with its probabilities, one thread, in turn
in one process. batchgeneratorsv2 gets the crop nnU-Net's loader gives it, ours the crop our loader reads. The
check sets one transform after the other to certain on both sides and compares distributions of what it does
to the same image (Kolmogorov-Smirnov over the draws).
Goal: at least 2.5 times the patches per CPU second; no p below 1e-3.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from scipy import ndimage, stats

from segbench.data.patches.augment import AugmentationSettings, augment
from segbench.data.patches.augment_parameters import extent_needed
from segbench.data.patches.sampling import plan_samples

torch.set_num_threads(1)

AXES = ("z", "y", "x")


def sample(size, channels, classes=5):
    rng = np.random.default_rng(0)
    coarse = [max(3, n // 20) for n in size]
    zoom = [n / c for n, c in zip(size, coarse, strict=True)]
    fields = [
        ndimage.zoom(rng.normal(size=coarse), zoom, order=1, mode="nearest", grid_mode=True)
        for _ in range(classes)
    ]
    labels = np.argmax(fields, axis=0).astype(np.uint8)
    image = np.stack([labels * 0.7 + rng.normal(0, 0.6, size=size) for _ in range(channels)]).astype(
        np.float32
    )
    return torch.from_numpy((image - image.mean()) / image.std()), torch.from_numpy(labels)


def peer_transforms(patch, only=None):
    """nnU-Net's list; with `only`, that transform alone and certain."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    turn = (-30 / 360 * 2 * np.pi, 30 / 360 * 2 * np.pi)

    def spatial(rotation, scaling):
        return SpatialTransform(
            patch, patch_center_dist_from_border=0, random_crop=False, p_elastic_deform=0,
            p_rotation=rotation, rotation=turn, p_scaling=scaling, scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False,
            border_mode_seg="constant", padding_value_seg=0,
        )  # fmt: skip

    def gamma(inverted):
        return GammaTransform(
            gamma=BGContrast((0.7, 1.5)), p_invert_image=inverted, synchronize_channels=False,
            p_per_channel=1, p_retain_stats=1,
        )  # fmt: skip

    one = 1 if only else None
    rows = {
        "noise": (
            0.1,
            GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True),
        ),
        "blur": (
            0.2,
            GaussianBlurTransform(
                blur_sigma=(0.5, 1.0), synchronize_channels=False, synchronize_axes=False,
                p_per_channel=one or 0.5, benchmark=True,
            ),
        ),
        "brightness": (
            0.15,
            MultiplicativeBrightnessTransform(
                multiplier_range=BGContrast((0.75, 1.25)), synchronize_channels=False, p_per_channel=1
            ),
        ),
        "contrast": (
            0.15,
            ContrastTransform(
                contrast_range=BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False,
                p_per_channel=1,
            ),
        ),
        "low_resolution": (
            0.25,
            SimulateLowResolutionTransform(
                scale=(0.5, 1), synchronize_channels=False, synchronize_axes=True, ignore_axes=None,
                allowed_channels=None, p_per_channel=one or 0.5,
            ),
        ),
        "gamma_inverted": (0.1, gamma(1)),
        "gamma": (0.3, gamma(0)),
    }  # fmt: skip
    if only in ("rotation", "scale"):
        return ComposeTransforms([spatial(float(only == "rotation"), float(only == "scale"))])
    if only == "mirror":
        return ComposeTransforms([spatial(0, 0), MirrorTransform(allowed_axes=(0, 1, 2))])
    if only:
        return ComposeTransforms([spatial(0, 0), rows[only][1]])
    middle = [RandomTransform(transform, apply_probability=p) for p, transform in rows.values()]
    return ComposeTransforms([spatial(0.2, 0.2), *middle, MirrorTransform(allowed_axes=(0, 1, 2))])


def peer_crop(patch):
    """nnU-Net's `get_patch_size`: the patch turned by 30 degrees about each axis, over 0.85."""
    reach = np.array(patch, dtype=float)
    turn = np.pi / 6
    for axis in range(3):
        first, second = [a for a in range(3) if a != axis]
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(turn)
        matrix[first, second], matrix[second, first] = -np.sin(turn), np.sin(turn)
        reach = np.maximum(reach, np.abs(matrix @ np.array(patch, dtype=float)))
    return tuple(int(n) for n in reach / 0.85)


def middle(x, size):
    cut = [slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(x.shape[-3:], size, strict=True)]
    return x[(..., *cut)]


def ours_once(step, image, labels, patch, settings, batch=2):
    """CPU seconds per patch of one batch; cropping is the loader's work and not timed, on either side."""
    plans = plan_samples(0, step, batch, ["a", "b"], foreground_fraction=0.33)
    extents = [extent_needed(plan.augmentation, settings, patch) for plan in plans]
    size = [max(sizes) for sizes in zip(*extents, strict=True)]
    images = torch.stack([middle(image, size)] * batch).contiguous()
    maps = torch.stack([middle(labels, size)] * batch).contiguous()
    begin = time.process_time()
    result = augment(images, maps, plans, settings, patch=patch)
    return (time.process_time() - begin) / batch, result


def peer_once(transforms, image, labels, crop):
    given = {
        "image": middle(image, crop).contiguous().clone(),
        "segmentation": middle(labels, crop)[None].to(torch.int16).contiguous(),
    }
    begin = time.process_time()
    result = transforms(**given)
    return time.process_time() - begin, result


def measures(image, labels, before):
    """What a transform did to a patch, as numbers."""
    x = image[0].double()
    gradient = (x[1:] - x[:-1]).pow(2).mean().sqrt()
    difference = (x - before.double()).pow(2).mean().sqrt()
    counts = torch.bincount(labels.flatten().long(), minlength=5)[:5].double() / labels.numel()
    return [
        float(x.mean()), float(x.std()), float(x.min()), float(x.max()), float(gradient), float(difference),
        float(counts[0]), float(counts[3]), float((labels[1:] != labels[:-1]).double().mean()),
    ]  # fmt: skip


NAMES = ("mean", "std", "min", "max", "gradient", "difference", "share of 0", "share of 3", "boundary")


def check(draws):
    """KS p-values of each transform alone, ours against the peer's."""
    patch = (40, 40, 40)
    image, labels = sample((72, 72, 72), 1)
    before = middle(image, patch)[0]
    worst = 1.0
    names = (
        "rotation",
        "scale",
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "gamma_inverted",
        "gamma",
    )
    for name in (*names, "mirror"):
        certain = {f"{other}.probability": float(other == name) for other in (*names, "mirror")}
        if name == "mirror":
            certain["mirror.probability"] = 0.5
        certain |= {"blur.channel_probability": 1.0, "low_resolution.channel_probability": 1.0}
        settings = AugmentationSettings(overrides=certain)
        transforms = peer_transforms(patch, only=name)
        ours, theirs = [], []
        for step in range(draws):
            _, (x, y) = ours_once(step, image, labels, patch, settings, batch=1)
            ours.append(measures(x[0], y[0], before))
            _, peer = peer_once(transforms, image, labels, (72, 72, 72))
            theirs.append(measures(peer["image"], peer["segmentation"][0], before))
        row = []
        for what, a, b in zip(NAMES, np.array(ours).T, np.array(theirs).T, strict=True):
            spread = max(np.ptp(a), np.ptp(b))
            if spread < 1e-3 * max(1.0, np.abs(a).max()):
                continue  # this transform does not touch it, on either side
            # Rounding must not decide ranks where a measure takes few values.
            digits = 5 - int(np.ceil(np.log10(spread)))
            p = stats.ks_2samp(a.round(digits), b.round(digits)).pvalue
            worst = min(worst, p)
            row.append(f"{what} {p:.3f}")
        print(f"  {name:15s} {'  '.join(row)}", flush=True)
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--patch", type=lambda text: tuple(int(n) for n in text.split(",")), default=(128, 128, 128)
    )
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--patches", type=int, default=60)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--no-check", action="store_true")
    arguments = parser.parse_args()
    patch, settings = arguments.patch, AugmentationSettings()
    image, labels = sample([int(1.6 * n) for n in patch], arguments.channels)
    try:
        transforms = peer_transforms(patch)
    except ImportError:
        transforms = None
        print("batchgeneratorsv2 is not installed: left out")
    crop = peer_crop(patch)
    for step in range(3):  # compilation and the peer's own FFT benchmark are not the patches'
        ours_once(step, image, labels, patch, AugmentationSettings(overrides={"rotation.probability": 1.0}))
    if transforms:
        for _ in range(20):
            peer_once(transforms, image, labels, crop)
    ours, theirs = [], []
    for step in range(arguments.patches // 2):
        seconds, _ = ours_once(step, image, labels, patch, settings)
        ours += [seconds, seconds]
        if transforms:
            theirs += [peer_once(transforms, image, labels, crop)[0] for _ in range(2)]
    mean = statistics.fmean(ours)
    print(f"{arguments.channels} channel(s), patch {patch}, {len(ours)} patches")
    print(f"segbench           {1e3 * mean:7.1f} CPU ms per patch   {1 / mean:6.1f} patches per CPU s")
    if not transforms:
        return 0
    peer = statistics.fmean(theirs)
    print(f"batchgeneratorsv2  {1e3 * peer:7.1f} CPU ms per patch   {1 / peer:6.1f} patches per CPU s")
    print(f"ratio {peer / mean:.1f}   (goal >= 2.5)")
    worst = 1.0
    if not arguments.no_check:
        print(f"p-values of equal distributions over {arguments.draws} draws:")
        worst = check(arguments.draws)
    return 0 if peer / mean >= 2.5 and worst > 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
