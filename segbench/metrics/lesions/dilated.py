"""Lesion-wise scores of BraTS 2023: every lesion counts once, and so does every false one.

Reference fragments that meet after dilation are one lesion. A lesion is matched by every predicted component
that touches its dilated self, and is scored against those components whole; a component that touches no
lesion is a false positive, whatever its size. Lesions of at most `minimum_volume_mm3` are left out of the
sums, but what touches them is not a false positive.

HD95 is the challenge's own, weighted by surface area (`lesions/surfels.py`).

Source: rachitsaluja/BraTS-2023-Metrics metrics.py (definition; no code); Saluja et al., BraTS 2023 cluster of
challenges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.boxes import Mask, box_of, boxes_of, connected, dilate, label, union_of
from segbench.metrics.evaluate import evaluate_case
from segbench.metrics.inputs import check_pair, check_regions, check_spacing
from segbench.metrics.lesions.surfels import surfel_hd95
from segbench.metrics.scores import CaseScores, Lesion


def evaluate_lesions(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]],
    dilation_iterations: int = 3,
    minimum_volume_mm3: float = 50.0,
    penalty_mm: float = 374.0,
) -> dict[str, CaseScores]:
    """Return the lesion-wise scores of every region of one case.

    Args:
        reference: Label map, z y x.
        prediction: Label map of the same shape.
        spacing_mm: Voxel size (z, y, x) in mm.
        regions: name -> labels.
        dilation_iterations: Steps (in voxels) by which reference fragments grow together.
        minimum_volume_mm3: Lesions of at most this volume are ignored.
        penalty_mm: HD95 of a missed or a false lesion.

    Raises:
        ValueError: As `evaluate_case`; steps, volume or penalty negative or not a finite number.
    """
    _check_rules(dilation_iterations, minimum_volume_mm3, penalty_mm)
    spacing = check_spacing(spacing_mm)
    labels = check_regions(regions)
    truth_map, guess_map = check_pair(reference, prediction)
    # Of the whole regions: Dice, and what stands in for HD95 where a side is empty.
    legacy = evaluate_case(
        truth_map,
        guess_map,
        spacing_mm=spacing,
        regions=labels,
        metrics=["dice", "hd95_max"],
        empty_policy="brats",
    )
    results: dict[str, CaseScores] = {}
    for name, values in labels.items():
        truth, guess = np.isin(truth_map, values), np.isin(guess_map, values)
        lesions, false = _lesions(
            truth, guess, spacing, int(dilation_iterations), minimum_volume_mm3, penalty_mm
        )
        whole = legacy[name]
        scores = _totals(lesions, false, penalty_mm) | {
            "legacy_dice": whole["dice"],
            "legacy_hd95": surfel_hd95(truth, guess, spacing) if whole.status == "ok" else whole["hd95_max"],
        }
        ranked = ("lesionwise_dice", "lesionwise_hd95", "legacy_dice", "legacy_hd95")
        penalised = frozenset(ranked) if whole.status != "ok" else frozenset[str]()
        results[name] = CaseScores(
            scores, whole.status, whole.reference_voxels, whole.prediction_voxels, penalised, lesions
        )
    return results


def _check_rules(dilation_iterations: int, minimum_volume_mm3: float, penalty_mm: float) -> None:
    """Refuse rules under which every lesion would be ignored or none could be scored."""
    rules = {
        "dilation_iterations": dilation_iterations,
        "minimum_volume_mm3": minimum_volume_mm3,
        "penalty_mm": penalty_mm,
    }
    for name, value in rules.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number that is not negative, found {value!r}")
    if dilation_iterations != int(dilation_iterations):
        raise ValueError(f"dilation_iterations counts steps, found {dilation_iterations!r}")


def _totals(lesions: Sequence[Lesion], false: int, penalty_mm: float) -> dict[str, float]:
    kept = [lesion for lesion in lesions if lesion.kept]
    count = len(kept) + false
    matched = sum(lesion.components > 0 for lesion in kept)
    dice = sum(lesion.dice for lesion in kept) / count if count else 1.0
    hd95 = (sum(lesion.hd95_mm for lesion in kept) + penalty_mm * false) / count if count else 0.0
    return {
        "lesionwise_dice": float(dice),
        "lesionwise_hd95": float(hd95),
        "lesions_tp": float(matched),
        "lesions_fn": float(len(kept) - matched),
        "lesions_fp": float(false),
        "lesions_ignored": float(len(lesions) - len(kept)),
    }


def _lesions(
    truth: Mask,
    guess: Mask,
    spacing: tuple[float, float, float],
    steps: int,
    minimum_mm3: float,
    penalty_mm: float,
) -> tuple[tuple[Lesion, ...], int]:
    """The lesions of a region in raster order, and the number of false positive components."""
    box = box_of(truth | guess, margin=steps)
    if box is None:
        return (), 0
    truth, guess = truth[box], guess[box]
    grown, n_lesions = label(dilate(truth, connected(2), steps), connected(3))
    parts, n_parts = label(guess, connected(3))
    # Both tables at once: which part lies in which grown lesion, and how much of the lesion it covers.
    touch = _joint(grown, parts, n_lesions, n_parts)
    owner = np.where(truth, grown, 0)
    cover = _joint(owner, parts, n_lesions, n_parts)
    sizes = cover.sum(axis=1)
    part_sizes = np.bincount(parts.ravel(), minlength=n_parts + 1)
    flat = owner.ravel()
    first = {int(n): int(at) for n, at in zip(*np.unique(flat, return_index=True), strict=True)}
    voxel_mm3 = float(np.prod(spacing))
    boxes = boxes_of(grown)
    part_boxes = boxes_of(parts)
    lesions: list[Lesion] = []
    touched: set[int] = set()
    for number in sorted(range(1, n_lesions + 1), key=lambda n: first.get(n, 0)):
        matched = [int(part) for part in np.flatnonzero(touch[number, 1:]) + 1]
        touched.update(matched)
        volume = float(sizes[number]) * voxel_mm3
        kept = volume > minimum_mm3
        if not matched:
            lesions.append(Lesion(volume, 0, 0.0, penalty_mm, kept))
            continue
        size = int(part_sizes[matched].sum())
        common = int(cover[number, matched].sum())
        dice = 2 * common / (int(sizes[number]) + size)
        union = union_of([boxes[number - 1], *(part_boxes[part - 1] for part in matched)])
        hd95 = surfel_hd95(owner[union] == number, np.isin(parts[union], matched), spacing)
        lesions.append(Lesion(volume, len(matched), dice, hd95, kept))
    return tuple(lesions), n_parts - len(touched)


def _joint(a: NDArray[np.int32], b: NDArray[np.int32], n_a: int, n_b: int) -> NDArray[np.int64]:
    """How many voxels carry number i in `a` and j in `b`; row 0 and column 0 are the background."""
    index = a.ravel().astype(np.int64) * (n_b + 1) + b.ravel()
    return np.bincount(index, minlength=(n_a + 1) * (n_b + 1)).reshape(n_a + 1, n_b + 1)
