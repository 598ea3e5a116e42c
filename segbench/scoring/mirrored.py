"""The hint that a badly scored prediction would fit if its array were mirrored or its axes exchanged.

Only what maps the grid onto itself is tried: mirrors, and permutations of axes of equal length. A sample of
the prediction's voxels is looked up in the reference, so that the hint costs milliseconds for any volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.volumes.geometry import Orientation

if TYPE_CHECKING:
    from numpy.typing import NDArray

BAD_DICE = 0.5
"""Mean Dice below which a hint is looked for."""

GAIN = 0.3
"""By how much the mean Dice has to grow before the hint is given."""

GOOD_DICE = 0.6
"""What it has to reach."""

_SAMPLE = 20_000
_AXES = "zyx"

Rows = Sequence[Mapping[str, Any]]


def mirror_hint(
    reference: NDArray[Any], prediction: NDArray[Any], regions: Mapping[str, Sequence[int]], rows: Rows
) -> tuple[str, str] | None:
    """What would have to be done to the prediction's array, and what it would bring; None without a hint.

    Args:
        reference: label map z, y, x.
        prediction: the same grid.
        regions: name -> labels.
        rows: the scored rows of the case; those whose region is in both maps count.

    Returns:
        The words for the symmetry ("mirrored along z"), and "Dice 0.12, mirrored along z it would be 0.95".
    """
    usual = [row for row in rows if row["status"] == "ok" and row.get("dice") is not None]
    if not usual or (now := float(np.mean([row["dice"] for row in usual]))) >= BAD_DICE:
        return None
    places, labels = _sampled(prediction)
    best, chosen = max(GOOD_DICE, now + GAIN), None
    for orientation in _symmetries(reference.shape, prediction.shape):
        met = reference[_moved(places, orientation, prediction.shape)]
        dice = _mean_dice(met, labels, regions, usual)
        if dice > best + (0.01 if chosen is not None else 0.0):  # of equals the simplest, which comes first
            best, chosen = dice, orientation
    if chosen is None:
        return None
    words = _described(chosen)
    return words, f"Dice {now:.2f}, {words} it would be {best:.2f}"


def _sampled(labels: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Places (3, n) of at most about 20,000 labelled voxels, evenly spread, and their labels."""
    step = max(1, int(np.count_nonzero(labels)) // _SAMPLE)
    found: list[NDArray[np.intp]] = []
    seen = 0
    for z, plane in enumerate(labels):
        flat = np.flatnonzero(plane)
        y, x = np.divmod(flat[-seen % step :: step], plane.shape[1])
        found.append(np.stack([np.full_like(y, z), y, x]))
        seen += flat.size
    places = np.concatenate(found, axis=1)
    return places, labels[tuple(places)]


def _symmetries(reference: Sequence[int], prediction: Sequence[int]) -> list[Orientation]:
    """Reorderings that lay one shape on the other, the simplest first, without the identity."""
    found = [
        Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
        for axes in permutations(range(3))
        if tuple(prediction[axis] for axis in axes) == tuple(reference)
        for flips in product((False, True), repeat=3)
    ]
    found.sort(key=lambda each: (each.axes != (0, 1, 2), sum(each.flips)))
    return [each for each in found if not each.is_identity]


def _moved(
    places: NDArray[np.intp], orientation: Orientation, shape: Sequence[int]
) -> tuple[NDArray[np.intp], ...]:
    """Where voxels lie after `Orientation.apply`."""
    return tuple(
        shape[axis] - 1 - places[axis] if flip else places[axis]
        for axis, flip in zip(orientation.axes, orientation.flips, strict=True)
    )


def _mean_dice(
    met: NDArray[Any], labels: NDArray[Any], regions: Mapping[str, Sequence[int]], rows: Rows
) -> float:
    """Mean Dice over the rows' regions, by the share of the sample that meets the reference's region."""
    total = 0.0
    for row in rows:
        members = regions[row["region"]]
        inside = np.isin(labels, members)
        share = float(np.isin(met[inside], members).mean()) if inside.any() else 0.0
        sizes = row["prediction_voxels"] + row["reference_voxels"]
        total += 2 * share * row["prediction_voxels"] / sizes
    return total / len(rows)


def _described(orientation: Orientation) -> str:
    mirrored = [_AXES[axis] for axis in range(3) if orientation.flips[axis]]
    parts = [f"mirrored along {' and '.join(mirrored)}"] if mirrored else []
    if orientation.axes != (0, 1, 2):
        order = ", ".join(_AXES[axis] for axis in orientation.axes)
        parts.insert(0, f"with its axes taken in the order {order}")
    return " and ".join(parts)
