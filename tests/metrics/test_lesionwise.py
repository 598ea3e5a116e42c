"""Lesion-wise scores by hand, and against a literal slow transcription of the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area

from segbench.metrics import evaluate_case
from segbench.metrics.lesions.dilated import evaluate_lesions

ONE = (1.0, 1.0, 1.0)
R = {"r": (1,)}


def cube(shape: tuple[int, int, int], *corners: tuple[int, int, int, int]) -> np.ndarray:
    volume = np.zeros(shape, np.uint8)
    for z, y, x, n in corners:
        volume[z : z + n, y : y + n, x : x + n] = 1
    return volume


def test_one_found_one_missed_one_invented() -> None:
    # Cubes of 64 mm3 far apart: the first is found exactly (1, 0), the second missed (0, 374), and a third
    # is invented (0, 374): Dice (1 + 0 + 0) / 3, HD95 (0 + 374 + 374) / 3.
    truth = cube((60, 30, 30), (2, 2, 2, 4), (25, 10, 10, 4))
    guess = cube((60, 30, 30), (2, 2, 2, 4), (50, 20, 20, 4))
    scores = evaluate_lesions(truth, guess, spacing_mm=ONE, regions=R)["r"]
    assert scores["lesionwise_dice"] == pytest.approx(1 / 3)
    assert scores["lesionwise_hd95"] == pytest.approx(2 * 374 / 3)
    assert [scores[k] for k in ("lesions_tp", "lesions_fn", "lesions_fp", "lesions_ignored")] == [1, 1, 1, 0]
    assert [(lesion.volume_mm3, lesion.components) for lesion in scores.lesions] == [(64, 1), (64, 0)]


def test_near_fragments_are_one_lesion_and_small_ones_are_ignored() -> None:
    truth = cube(
        (60, 30, 30), (2, 2, 2, 4), (2, 2, 10, 4), (40, 10, 10, 3)
    )  # a gap of 4 closes; 27 mm3 is small
    scores = evaluate_lesions(truth, truth, spacing_mm=ONE, regions=R)["r"]
    assert len(scores.lesions) == 2
    assert scores["lesions_ignored"] == 1
    assert scores["lesionwise_dice"] == 1
    # what touches an ignored lesion is no false positive, and missing it costs nothing
    missed = evaluate_lesions(
        truth, cube((60, 30, 30), (2, 2, 2, 4), (2, 2, 10, 4)), spacing_mm=ONE, regions=R
    )["r"]
    assert missed["lesionwise_dice"] == 1
    assert missed["lesions_fp"] == 0


def test_a_matched_component_counts_whole() -> None:
    truth = cube((40, 20, 20), (2, 2, 2, 4))
    guess = truth.copy()
    guess[2:34, 2:6, 2:6] = 1  # reaches far beyond: 4*4*32 voxels, 64 of them right
    scores = evaluate_lesions(truth, guess, spacing_mm=ONE, regions=R)["r"]
    assert scores["lesionwise_dice"] == pytest.approx(2 * 64 / (64 + 512))


def test_empties() -> None:
    nothing, something = np.zeros((20, 20, 20), np.uint8), cube((20, 20, 20), (2, 2, 2, 5))
    both = evaluate_lesions(nothing, nothing, spacing_mm=ONE, regions=R)["r"]
    assert (both["lesionwise_dice"], both["lesionwise_hd95"]) == (1.0, 0.0)
    missed = evaluate_lesions(something, nothing, spacing_mm=ONE, regions=R)["r"]
    assert (missed["lesionwise_dice"], missed["lesionwise_hd95"]) == (0.0, 374.0)
    invented = evaluate_lesions(nothing, something, spacing_mm=ONE, regions=R)["r"]
    assert (invented["lesionwise_dice"], invented["lesions_fp"]) == (0.0, 1.0)
    small = evaluate_lesions(cube((20, 20, 20), (2, 2, 2, 2)), nothing, spacing_mm=ONE, regions=R)["r"]
    assert (small["lesionwise_dice"], small["lesionwise_hd95"]) == (1.0, 0.0)


def surface(mask: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Every 2 x 2 x 2 window with a surface, and its area: marching cubes of the side with fewer voxels."""
    padded = np.pad(mask, 1)
    places, areas = [], []
    for at in np.ndindex(*(n - 1 for n in padded.shape)):
        window = padded[tuple(slice(a, a + 2) for a in at)].astype(float)
        if 0 < window.sum() < 8:
            side = window if window.sum() <= 4 else 1 - window
            points, faces, *_ = marching_cubes(side, 0.5, spacing=spacing, method="lorensen")
            areas.append(mesh_surface_area(points, faces))
            places.append(at)
    return np.array(places) * np.array(spacing), np.array(areas)


def weighted_hd95(one: np.ndarray, other: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """The larger of the two distances within which 95 % of one surface's area lies from the other."""
    (a, area_a), (b, area_b) = surface(one, spacing), surface(other, spacing)
    between = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    directed = []
    for distances, areas in ((between.min(axis=1), area_a), (between.min(axis=0), area_b)):
        reached = [d for d in sorted(distances) if areas[distances <= d].sum() >= 0.95 * areas.sum() - 1e-9]
        directed.append(reached[0])
    return max(directed)


def literal(
    truth: np.ndarray, guess: np.ndarray, spacing: tuple[float, float, float], k: int, m: float
) -> dict:
    """The definition, sentence by sentence, one full volume per lesion."""
    eighteen, every = ndimage.generate_binary_structure(3, 2), np.ones((3, 3, 3))
    wide = ndimage.binary_dilation(truth, eighteen, iterations=k) if k else truth  # 0 means for ever in scipy
    grown, n = ndimage.label(wide, every)
    parts, p = ndimage.label(guess, every)
    dice = hd = 0.0
    tp = fn = ignored = 0
    touched = set()
    for i in range(1, n + 1):
        lesion = truth & (grown == i)
        matched = set(np.unique(parts[grown == i])) - {0}
        touched |= matched
        if lesion.sum() * np.prod(spacing) <= m:
            ignored += 1
            continue
        if not matched:
            fn += 1
            hd += 374.0
            continue
        tp += 1
        union = np.isin(parts, list(matched))
        dice += 2 * (lesion & union).sum() / (lesion.sum() + union.sum())
        hd += weighted_hd95(lesion, union, spacing)
    fp = p - len(touched)
    count = tp + fn + fp
    return {
        "lesionwise_dice": dice / count if count else 1.0,
        "lesionwise_hd95": (hd + 374.0 * fp) / count if count else 0.0,
        "lesions_tp": tp, "lesions_fn": fn, "lesions_fp": fp, "lesions_ignored": ignored,
    }  # fmt: skip


def test_the_hd95_of_the_challenge_weighs_a_surface_by_its_area() -> None:
    # A lone voxel is an octahedron of 1.73 mm2, a flat boundary voxel 1 mm2: 5 lone ones beside a cube of 5
    # are 5 of 103 boundary voxels (4.9 %) and 6.2 % of the area.
    truth = cube((40, 40, 20), (2, 2, 2, 5))
    guess = cube((40, 40, 20), (2, 2, 2, 5), *((31, y, 6, 1) for y in (2, 10, 18, 26, 34)))
    whole = evaluate_lesions(truth, guess, spacing_mm=ONE, regions=R)["r"]
    assert whole["legacy_hd95"] == weighted_hd95(truth > 0, guess > 0, ONE) > 20
    voxels = evaluate_case(truth, guess, spacing_mm=ONE, regions=R, metrics=["hd95_max"])["r"]
    assert voxels["hd95_max"] == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_literal_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(9, 15, 3))
    truth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.4) > 0.22
    guess = (ndimage.gaussian_filter(rng.standard_normal(shape), 1.4) > 0.25) | (
        truth & (rng.random(shape) < 0.7)
    )
    spacing = tuple(float(s) for s in rng.uniform(0.5, 2.5, 3))
    k, m = int(rng.integers(0, 4)), float(rng.choice([0.0, 10.0, 50.0]))
    ours = evaluate_lesions(
        truth, guess, spacing_mm=spacing, regions=R, dilation_iterations=k, minimum_volume_mm3=m
    )["r"]  # fmt: skip
    expected = literal(truth, guess, spacing, k, m)
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "rule",
    [
        {"dilation_iterations": -1},
        {"dilation_iterations": 1.5},
        {"minimum_volume_mm3": float("nan")},
        {"minimum_volume_mm3": float("inf")},
        {"penalty_mm": float("nan")},
    ],
)
def test_rules_that_would_score_nothing(rule: dict[str, Any]) -> None:
    one = np.ones((2, 2, 2), np.uint8)
    with pytest.raises(ValueError, match=next(iter(rule))):
        evaluate_lesions(one, one, spacing_mm=(1, 1, 1), regions={"a": (1,)}, **rule)
