"""What augmentation does to one sample, as plain numbers drawn from counters; no image is touched here.

Every number is drawn in a fixed order whether it is used or not, so switching one transform off, or changing
its range, leaves all others as they were.

Source: MIC-DKFZ/nnUNet training/nnUNetTrainer/nnUNetTrainer.py `get_training_transforms`; the distributions
are those of MIC-DKFZ/batchgeneratorsv2 0.3.6, which it calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from segbench.data.random import rng

__all__ = [
    "DEFAULTS",
    "TRANSFORMS",
    "AugmentationDraws",
    "AugmentationSettings",
    "Chosen",
    "choose",
    "draw_augmentation",
    "extent_needed",
    "largest_extent",
]

Axis = Literal["z", "y", "x"]

#: Transforms in the order in which they are applied.
TRANSFORMS = (
    "rotation", "scale", "noise", "blur", "brightness", "contrast", "low_resolution",
    "gamma_inverted", "gamma", "mirror",
)  # fmt: skip

_PER_CHANNEL = ("blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma")

#: Largest crop in multiples of the patch, per axis; what a transform reaches beyond it is 0.
MAX_EXTENT = 1.5
# Sigmas, zooms and exponents below this divide by what is nearly nothing.
_LEAST = 1e-3
# A patch this much longer than it is thick is rotated in the plane only (the reference's threshold).
_DUMMY_2D_RATIO = 3.0

#: Overridable values by name; ranges are (low, high), probabilities are floats.
DEFAULTS: Mapping[str, float | tuple[float, float]] = {
    "rotation.probability": 0.2,
    "rotation.range": (-30.0, 30.0),  # degrees, about each axis
    "rotation.range_2d": (-180.0, 180.0),  # degrees, in the plane of anisotropic patches
    "scale.probability": 0.2,
    "scale.range": (0.7, 1.4),
    "noise.probability": 0.1,
    "noise.range": (0.0, 0.1),
    "blur.probability": 0.2,
    "blur.channel_probability": 0.5,
    "blur.range": (0.5, 1.0),  # voxels
    "brightness.probability": 0.15,
    "brightness.range": (0.75, 1.25),
    "contrast.probability": 0.15,
    "contrast.range": (0.75, 1.25),
    "low_resolution.probability": 0.25,
    "low_resolution.channel_probability": 0.5,
    "low_resolution.range": (0.5, 1.0),
    "gamma_inverted.probability": 0.1,
    "gamma_inverted.range": (0.7, 1.5),
    "gamma.probability": 0.3,
    "gamma.range": (0.7, 1.5),
    "mirror.probability": 0.5,  # per axis
    "image_order": 1.0,  # 1 linear, 3 cubic: interpolation of rotation, scale and low resolution
}


@dataclass(frozen=True, slots=True)
class AugmentationSettings:
    """Which random transforms a protocol asks for.

    Attributes:
        name: "none", "mirror-brightness" or "nnunet" (all of `TRANSFORMS`).
        mirror_axes: Axes that may be mirrored: the card's.
        overrides: Values of `DEFAULTS` that are changed, by name.
    """

    name: Literal["none", "mirror-brightness", "nnunet"] = "nnunet"
    mirror_axes: tuple[Axis, ...] = ("z", "y", "x")
    overrides: Mapping[str, float | tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in ("none", "mirror-brightness", "nnunet"):
            raise ValueError(f"unknown augmentation {self.name!r}; known: none, mirror-brightness, nnunet")
        if not set(self.mirror_axes) <= {"z", "y", "x"}:
            raise ValueError(f"mirror_axes must be of z, y, x, not {self.mirror_axes}")
        for key, value in self.overrides.items():
            _check_override(key, value)

    @property
    def transforms(self) -> tuple[str, ...]:
        """The transforms that can happen, in order."""
        return {"none": (), "mirror-brightness": ("brightness", "mirror"), "nnunet": TRANSFORMS}[self.name]

    @property
    def spatial(self) -> bool:
        """Whether patches may be rotated or scaled, so that larger crops are read."""
        possible = self.probability("rotation") + self.probability("scale") > 0
        return "rotation" in self.transforms and possible

    @property
    def image_order(self) -> int:
        """Interpolation of images: 1 linear, 3 cubic."""
        order = self._value("image_order")
        assert isinstance(order, float)
        return int(order)

    def probability(self, transform: str, *, channel: bool = False) -> float:
        """How often a transform happens, 0 when it is not in the set."""
        if transform not in self.transforms:
            return 0.0
        value = self._value(f"{transform}.{'channel_probability' if channel else 'probability'}")
        assert isinstance(value, float)
        return value

    def interval(self, transform: str, suffix: str = "range") -> tuple[float, float]:
        """The range a transform's value is drawn from."""
        low, high = self._value(f"{transform}.{suffix}")  # type: ignore[misc]
        return float(low), float(high)

    def _value(self, key: str) -> float | tuple[float, float]:
        value = self.overrides.get(key, DEFAULTS[key])
        return float(value) if isinstance(value, int | float) else value


def _check_override(key: str, value: object) -> None:
    if key not in DEFAULTS:
        raise ValueError(f"unknown augmentation override {key!r}; known: {', '.join(DEFAULTS)}")
    if isinstance(DEFAULTS[key], tuple):
        if not isinstance(value, Sequence) or len(value) != 2 or not value[0] <= value[1]:
            raise ValueError(f"{key} must be (low, high), not {value!r}")
        if not key.startswith("rotation.") and not value[0] >= (0 if key.startswith("noise.") else _LEAST):
            raise ValueError(f"{key} must be positive, not {value!r}")
    elif key == "image_order":
        if value not in (1, 3):
            raise ValueError(f"image_order must be 1 or 3, not {value!r}")
    elif not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{key} must be between 0 and 1, not {value!r}")


@dataclass(frozen=True, slots=True)
class AugmentationDraws:
    """Uniform numbers in [0, 1) of one sample, one for everything that could happen; and its counters.

    Attributes:
        seed, step, index: What the numbers are a function of.
        happens: Per transform of `TRANSFORMS` (mirror: unused) the number held against its probability.
        angles: Three, one per axis.
        scale: One for all axes.
        noise: One.
        mirror: Three, one per axis.
    """

    seed: int
    step: int
    index: int
    happens: tuple[float, ...]
    angles: tuple[float, float, float]
    scale: float
    noise: float
    mirror: tuple[float, float, float]

    def channel(self, channel: int) -> tuple[float, ...]:
        """Ten uniform numbers of one channel: blur applied, three sigmas, brightness, contrast, low
        resolution applied and its zoom, inverted gamma, gamma. A function of the counters and the channel's
        place.
        """
        drawn = rng(self.seed, "augment", self.step, self.index, "channel", channel).random(10)
        return tuple(float(value) for value in drawn)


def draw_augmentation(seed: int, step: int, index: int) -> AugmentationDraws:
    """The numbers of sample `index` of the global batch of step `step`."""
    drawn = [float(v) for v in rng(seed, "augment", step, index).random(len(TRANSFORMS) + 8)]
    happens, rest = tuple(drawn[: len(TRANSFORMS)]), drawn[len(TRANSFORMS) :]
    angles, mirror = (rest[0], rest[1], rest[2]), (rest[5], rest[6], rest[7])
    return AugmentationDraws(seed, step, index, happens, angles, rest[3], rest[4], mirror)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What happens to one sample: values, or None (an empty tuple) where a transform does not happen.

    Per-channel tuples have one entry per channel, None where the channel is left alone.

    Attributes:
        matrix: (3, 3) rows of the map from output offsets to source offsets from the patch centre, voxels z y
            x.
        noise: Standard deviation.
        blur: Per channel three sigmas in voxels.
        brightness, contrast: Per channel factors.
        low_resolution: Per channel zoom.
        flat: The first axis takes no part in rotation, scale and low resolution (anisotropic patch).
        gamma_inverted, gamma: Per channel exponents.
        mirror: Axes (0..2) that are flipped.
    """

    matrix: tuple[tuple[float, float, float], ...] | None
    noise: float | None
    blur: tuple[tuple[float, float, float] | None, ...]
    brightness: tuple[float, ...]
    contrast: tuple[float, ...]
    low_resolution: tuple[float | None, ...]
    flat: bool
    gamma_inverted: tuple[float, ...]
    gamma: tuple[float, ...]
    mirror: tuple[int, ...]


def choose(
    draws: AugmentationDraws, settings: AugmentationSettings, *, patch: Sequence[int], channels: int
) -> Chosen:
    """Turn a sample's numbers into what happens to it.

    Args:
        draws: From `draw_augmentation`.
        settings: Probabilities and ranges.
        patch: (3,) voxels z y x; decides whether the sample counts as anisotropic.
        channels: Number of image channels.
    """
    flat = _is_flat(patch)
    happens = dict(zip(TRANSFORMS, draws.happens, strict=True))
    on = {name: happens[name] < settings.probability(name) for name in TRANSFORMS}
    needed = any(on[name] for name in _PER_CHANNEL)
    per_channel = [draws.channel(channel) for channel in range(channels)] if needed else []

    def piecewise(name: str, place: int) -> tuple[float, ...]:
        if not on[name]:
            return ()
        return tuple(_about_one(numbers[place], settings.interval(name)) for numbers in per_channel)

    blur: tuple[tuple[float, float, float] | None, ...] = ()
    if on["blur"]:
        limit, (low, high) = settings.probability("blur", channel=True), settings.interval("blur")
        blur = tuple(
            (_between(n[1], low, high), _between(n[2], low, high), _between(n[3], low, high))
            if n[0] < limit
            else None
            for n in per_channel
        )
    zoom: tuple[float | None, ...] = ()
    if on["low_resolution"]:
        limit = settings.probability("low_resolution", channel=True)
        low, high = settings.interval("low_resolution")
        zoom = tuple(_between(n[7], low, high) if n[6] < limit else None for n in per_channel)
    may_mirror = {"z": 0, "y": 1, "x": 2}
    chance = settings.probability("mirror")
    mirror = tuple(a for n, a in may_mirror.items() if n in settings.mirror_axes and draws.mirror[a] < chance)
    return Chosen(
        matrix=_matrix(draws, settings, flat),
        noise=_between(draws.noise, *settings.interval("noise")) if on["noise"] else None,
        blur=blur,
        brightness=piecewise("brightness", 4),
        contrast=piecewise("contrast", 5),
        low_resolution=zoom,
        flat=flat,
        gamma_inverted=piecewise("gamma_inverted", 8),
        gamma=piecewise("gamma", 9),
        mirror=mirror,
    )


def extent_needed(
    draws: AugmentationDraws, settings: AugmentationSettings, patch: Sequence[int]
) -> tuple[int, int, int]:
    """Smallest crop (3,), centred on the patch, that holds every voxel the sample's rotation and scale reach.

    Never smaller than the patch, never more than 1.5 times it, and as odd or even as the patch, so that both
    have one centre.
    """
    matrix = _matrix(draws, settings, _is_flat(patch)) if settings.spatial else None
    if matrix is None:
        return int(patch[0]), int(patch[1]), int(patch[2])
    # The outermost voxel centres, and one more voxel for interpolation.
    reach = np.abs(np.asarray(matrix)) @ (np.asarray(patch, dtype=np.float64) - 1.0)
    sizes: list[int] = []
    for length, limit in zip(reach, patch, strict=True):
        size = min(math.ceil(length + 1.0 - 1e-6), int(MAX_EXTENT * limit))
        size = max(size, int(limit))
        sizes.append(size + (size - int(limit)) % 2)
    return sizes[0], sizes[1], sizes[2]


def largest_extent(patch: Sequence[int]) -> tuple[int, int, int]:
    """The largest crop that `extent_needed` can ask for."""
    z, y, x = (int(MAX_EXTENT * n) + (int(MAX_EXTENT * n) - n) % 2 for n in patch)
    return z, y, x


def _matrix(
    draws: AugmentationDraws, settings: AugmentationSettings, flat: bool
) -> tuple[tuple[float, float, float], ...] | None:
    """Rz Ry Rx S as the reference composes them, or None when neither rotation nor scale happens."""
    rotates = draws.happens[TRANSFORMS.index("rotation")] < settings.probability("rotation")
    scales = draws.happens[TRANSFORMS.index("scale")] < settings.probability("scale")
    if not rotates and not scales:
        return None
    matrix: npt.NDArray[np.float64] = np.eye(3)
    if rotates and flat:
        low, high = settings.interval("rotation", "range_2d")
        matrix = _rotation(0, math.radians(_between(draws.angles[0], low, high)))
    elif rotates:
        low, high = settings.interval("rotation")
        for axis in range(3):
            matrix = _rotation(axis, math.radians(_between(draws.angles[axis], low, high))) @ matrix
    if scales:
        factor = _between(draws.scale, *settings.interval("scale"))
        matrix = matrix @ np.diag([1.0 if flat else factor, factor, factor])
    rows = [(float(row[0]), float(row[1]), float(row[2])) for row in matrix]
    return rows[0], rows[1], rows[2]


def _rotation(axis: int, angle: float) -> npt.NDArray[np.float64]:
    """Rotation by `angle` radians in the plane of the two other axes."""
    first, second = [other for other in range(3) if other != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    if axis == 1:  # the reference turns about its middle axis the other way
        matrix = matrix.T
    return matrix


def _is_flat(patch: Sequence[int]) -> bool:
    return max(patch) / patch[0] > _DUMMY_2D_RATIO


def _between(u: float, low: float, high: float) -> float:
    return low + u * (high - low)


def _about_one(u: float, interval: tuple[float, float]) -> float:
    """Half of the draws below 1, half above, uniform on each side (the reference's `BGContrast`)."""
    low, high = interval
    if not low < 1.0 < high:
        return _between(u, low, high)
    return _between(2.0 * u, low, 1.0) if u < 0.5 else _between(2.0 * u - 1.0, 1.0, high)
