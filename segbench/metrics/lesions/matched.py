"""Lesion-wise scores of BraTS 2026: every lesion is matched with at most one predicted component.

Lesions and predicted components are the 26-connected components of a region, nothing is dilated and none is
too small. Pairs are matched one to one so that the sum of their Dice is largest; a pair counts with a Dice of
1e-6 or more. Dice, pooled HD95 and NSD are means over the **matched** lesions: a missed or a false one shows
in the counts alone. The tolerance of NSD is the smallest spacing, and its two sides weigh the same.

A region that is empty on both sides is not defined (NaN). Where no pair matches, Dice and NSD are 0 and HD95
is the penalty; the package itself writes `inf` there, and 373 mm for a missing case and for whole regions.

With `large_mm3` (metastases) the means are over lesions of at least that volume, where every miss and every
false component counts with 0 and the penalty; without a large lesion in the reference they are not defined.
Lesions of both kinds are found with a Dice of at least `found_dice`, else missed.

The package lays the spacing (x, y, z) on arrays in the order z, y, x. This profile repeats it, so that its
numbers are the challenge's; nothing changes where the first and the last spacing are equal, as on the BraTS
grid of 1 mm. `hd95` beside it is in true millimetres.

`legacy_*` are the scores of the whole region as the package has them: HD95 in voxels, NSD at half a voxel,
and where the two sides have no voxel in common 0, the penalty and 0.

Source: the documentation, task configurations and output of brats-evaluation 0.0.10 (facts; no code);
BrainLesion/panoptica 2.1, `MaxBipartiteMatching` and its metrics (definitions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from segbench.metrics.boxes import box_of, boxes_of, connected, label, union_of
from segbench.metrics.engine._plain import region_mask
from segbench.metrics.evaluate import measure
from segbench.metrics.inputs import check_pair, check_regions, check_spacing
from segbench.metrics.overlap import dice
from segbench.metrics.policies import POLICIES, status_of
from segbench.metrics.scores import CaseScores, Lesion
from segbench.metrics.surface import hd95

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segbench.metrics.boxes import Mask
    from segbench.metrics.engine.measure import Measurement
    from segbench.metrics.inputs import Spacing

LEAST_DICE = 1e-6
"""A pair of a lesion and a component matches with at least this Dice."""
PENALTY_MM = POLICIES["brats2026"]["prediction_empty"].distance
_MEANS = ("lesionwise_dice", "lesionwise_hd95", "lesionwise_nsd")
_NOTHING = (0.0, PENALTY_MM, 0.0)
"""The three means where no lesion was matched."""
_VOXEL: Spacing = (1.0, 1.0, 1.0)


def evaluate_matched_lesions(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]],
    large_mm3: float | None = None,
    found_dice: float = 0.1,
) -> dict[str, CaseScores]:
    """Return the lesion-wise scores of every region of one case.

    Args:
        reference: Label map, z y x.
        prediction: Label map of the same shape.
        spacing_mm: Voxel size (z, y, x) in mm.
        regions: name -> labels.
        large_mm3: Volume from which a lesion enters the means of the task on metastases; None: every matched
            lesion does.
        found_dice: Dice from which a lesion is found, where `large_mm3` is given.

    Raises:
        ValueError: As `evaluate_case`; `large_mm3` negative or not finite.
    """
    if large_mm3 is not None and not (math.isfinite(large_mm3) and large_mm3 >= 0):
        raise ValueError(f"large_mm3 must be a finite number that is not negative, found {large_mm3!r}")
    spacing = check_spacing(spacing_mm)
    labels = check_regions(regions)
    truth_map, guess_map = check_pair(reference, prediction)
    whole = measure(truth_map, guess_map, spacing_mm=_VOXEL, regions=labels, distances=True)
    results: dict[str, CaseScores] = {}
    for name, values in labels.items():
        counts = whole[name].counts
        status = status_of(counts.reference, counts.prediction)
        box = box_of(truth_map, guess_map) if status != "both_empty" else None
        lesions, nsd, false = [], [], 0
        if box is not None:
            truth, guess = (region_mask(labelled[box], values) for labelled in (truth_map, guess_map))
            lesions, nsd, false = _lesions(truth, guess, spacing)
        lesions = [_kept(lesion, large_mm3) for lesion in lesions]
        scores = _totals(lesions, nsd, false, found_dice, penalised=large_mm3 is not None)
        scores |= _whole(whole[name], status)
        by_rule = [*_MEANS, "legacy_dice", "legacy_hd95", "legacy_nsd"] if status != "ok" else []
        if not any(lesion.components and lesion.kept for lesion in lesions):
            by_rule += _MEANS
        results[name] = CaseScores(
            scores, status, counts.reference, counts.prediction, frozenset(by_rule), tuple(lesions)
        )
    return results


def _kept(lesion: Lesion, large_mm3: float | None) -> Lesion:
    kept = large_mm3 is None or lesion.volume_mm3 >= large_mm3
    return Lesion(lesion.volume_mm3, lesion.components, lesion.dice, lesion.hd95_mm, kept)


def _lesions(truth: Mask, guess: Mask, spacing: Spacing) -> tuple[list[Lesion], list[float], int]:
    """The lesions in raster order, the NSD of each (0 when unmatched), the components without a lesion."""
    box = box_of(truth, guess)
    truth, guess = truth[box], guess[box]
    owners, n_lesions = label(truth, connected(3))
    parts, n_parts = label(guess, connected(3))
    sizes = np.bincount(owners[truth], minlength=n_lesions + 1)
    both = truth & guess
    index = owners[both].astype(np.int64) * (n_parts + 1) + parts[both]
    partner = _matched(index, sizes, np.bincount(parts[guess], minlength=n_parts + 1))
    boxes, part_boxes = boxes_of(owners), boxes_of(parts)
    voxel_mm3 = float(np.prod(spacing))
    lesions: list[Lesion] = []
    nsd: list[float] = []
    for number in range(1, n_lesions + 1):
        volume = float(sizes[number]) * voxel_mm3
        part = partner.get(number)
        if part is None:
            lesions.append(Lesion(volume, 0, 0.0, PENALTY_MM, kept=True))
            nsd.append(0.0)
            continue
        union = union_of([boxes[number - 1], part_boxes[part - 1]])
        pair = measure(
            owners[union] == number,
            parts[union] == part,
            spacing_mm=(spacing[2], spacing[1], spacing[0]),  # as the package does, see above
            regions={"lesion": (1,)},
            distances=True,
        )["lesion"]
        assert pair.d1 is not None
        assert pair.d2 is not None
        lesions.append(Lesion(volume, 1, dice(pair.counts), hd95(pair.d1, pair.d2), kept=True))
        nsd.append(_surface_share(pair, min(spacing)))
    return lesions, nsd, n_parts - len(partner)


def _matched(
    index: NDArray[np.int64], sizes: NDArray[np.int64], part_sizes: NDArray[np.int64]
) -> dict[int, int]:
    """Lesion -> component of the one-to-one matching with the largest sum of Dice.

    Args:
        index: of every voxel that both sides have, its lesion x components + its component.
        sizes: voxels of each lesion; the first is the background.
        part_sizes: of each component.
    """
    from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]

    pairs, common = np.unique(index, return_counts=True)
    if not common.size:
        return {}
    lesion, part = np.divmod(pairs, part_sizes.size)
    numbers, row = np.unique(lesion, return_inverse=True)
    components, column = np.unique(part, return_inverse=True)
    overlap = 2.0 * common / (sizes[lesion] + part_sizes[part])
    cost = np.full((numbers.size, components.size), 1.0 + LEAST_DICE)
    counts = overlap >= LEAST_DICE
    cost[row[counts], column[counts]] = 1.0 - overlap[counts]
    assign = cast("Any", optimize).linear_sum_assignment
    return {
        int(numbers[i]): int(components[j]) for i, j in zip(*assign(cost), strict=True) if cost[i, j] < 1.0
    }


def _surface_share(pair: Measurement, tolerance: float) -> float:
    """NSD with the same weight for both surfaces: the mean of the two shares within the tolerance."""
    assert pair.d1 is not None
    assert pair.d2 is not None
    return float((np.mean(pair.d1 <= tolerance) + np.mean(pair.d2 <= tolerance)) / 2)


def _totals(
    lesions: Sequence[Lesion], nsd: Sequence[float], false: int, found_dice: float, *, penalised: bool
) -> dict[str, float]:
    """Counts, and the means over matched lesions; `penalised`: over large ones, misses and false ones too."""
    large = [(lesion, share) for lesion, share in zip(lesions, nsd, strict=True) if lesion.kept]
    scored = [(lesion.dice, lesion.hd95_mm, share) for lesion, share in large if lesion.components]
    least = found_dice if penalised else 0.0  # a match below it is in the means and counts as a miss
    found = sum(lesion.components > 0 and lesion.dice >= least for lesion, _ in large)
    if penalised and large:
        scored += [_NOTHING] * (len(large) - len(scored) + false)
    elif not penalised and not scored and (large or false):
        scored = [_NOTHING]
    means = np.mean(scored, axis=0) if scored else np.full(3, np.nan)
    small = [lesion for lesion in lesions if not lesion.kept]
    return dict(zip(_MEANS, map(float, means), strict=True)) | {
        "lesions_tp": float(found),
        "lesions_fn": float(len(large) - found),
        "lesions_fp": float(false),
        "lesions_ignored": float(len(small)),
        "small_lesions_found": float(
            sum(lesion.components > 0 and lesion.dice >= found_dice for lesion in small)
        ),
    }


def _whole(measured: Measurement, status: str) -> dict[str, float]:
    """Dice, HD95 and NSD of the whole region in voxels; without a common voxel as if it were missed."""
    if status != "ok" or not measured.counts.intersection:
        fill = POLICIES["brats2026"]["prediction_empty" if status == "ok" else status]
        return {"legacy_dice": fill.overlap, "legacy_hd95": fill.distance, "legacy_nsd": fill.overlap}
    assert measured.d1 is not None
    assert measured.d2 is not None
    return {
        "legacy_dice": dice(measured.counts),
        "legacy_hd95": hd95(measured.d1, measured.d2),
        "legacy_nsd": _surface_share(measured, 0.5),
    }
