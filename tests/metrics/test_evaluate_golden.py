"""Numbers derived by hand. Each derivation stands beside its test; the tolerance is 1e-12."""

import math

import numpy as np
import pytest

from segbench.metrics import evaluate_case
from segbench.metrics.surface import boundary

ONE = {"object": (1,)}


def score(reference, prediction, spacing=(1.0, 1.0, 1.0), **options):
    return evaluate_case(reference, prediction, spacing_mm=spacing, regions=ONE, **options)["object"]


def cube(shape, start, size):
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(s, s + size) for s in start)] = 1
    return mask


def test_a_cube_of_4_has_56_boundary_voxels():
    # 4^3 = 64 voxels, the inner 2^3 = 8 have all six neighbours inside.
    assert int(boundary(cube((8, 8, 8), (2, 2, 2), 4).astype(bool)).sum()) == 56


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cube_shifted_by_one_voxel(axis):
    # Overlap 3*4*4 = 48 of 64 and 64: Dice 96/128, IoU 48/80. The leading face of P (16 voxels) is 1 mm from
    # R's boundary; the four inner voxels of P's trailing face lie at R's inner second layer, whose nearest
    # boundary voxel is the face one step back: 1 mm. All other boundary voxels of P (56 - 16 - 4 = 36) are
    # boundary voxels of R too. The same for R by symmetry: mean 20/56, 95 % = 1, NSD at 0.5 mm = 36/56.
    start = [2, 2, 2]
    start[axis] += 1
    scores = score(cube((8, 8, 9), (2, 2, 2), 4), cube((8, 8, 9), start, 4), nsd_tolerance_mm=0.5)
    assert scores["dice"] == pytest.approx(0.75, abs=1e-12)
    assert scores["iou"] == pytest.approx(0.6, abs=1e-12)
    assert scores["hd"] == scores["hd95"] == scores["hd95_max"] == 1.0
    assert scores["assd"] == pytest.approx(20 / 56, abs=1e-12)
    assert scores["masd"] == pytest.approx(20 / 56, abs=1e-12)
    assert scores["nsd"] == pytest.approx(36 / 56, abs=1e-12)
    assert scores["precision"] == scores["recall"] == 0.75
    assert scores["volume_similarity"] == 1.0
    assert scores["relative_volume_error"] == 0.0
    assert scores.status == "ok"
    assert not scores.penalised


def test_a_distance_equal_to_the_tolerance_is_inside():
    scores = score(cube((8, 8, 9), (2, 2, 2), 4), cube((8, 8, 9), (2, 2, 3), 4), nsd_tolerance_mm=1.0)
    assert scores["nsd"] == 1.0


def test_three_steps_of_a_tenth_are_within_three_tenths():
    # 3 * 0.1 is 0.30000000000000004 in floating point.
    reference, prediction = np.zeros((1, 1, 9), np.uint8), np.zeros((1, 1, 9), np.uint8)
    reference[0, 0, 2] = prediction[0, 0, 5] = 1
    scores = score(reference, prediction, (1, 1, 0.1), nsd_tolerance_mm=0.3)
    assert scores["nsd"] == 1.0
    assert score(reference, prediction, (1, 1, 0.1), nsd_tolerance_mm=0.29)["nsd"] == 0.0


def test_two_single_voxels():
    # (2, 3, 6) steps of (0.5, 1, 2) mm: sqrt(1 + 9 + 144).
    reference, prediction = np.zeros((5, 9, 9), np.uint8), np.zeros((5, 9, 9), np.uint8)
    reference[1, 2, 1] = prediction[3, 5, 7] = 1
    scores = score(reference, prediction, (0.5, 1.0, 2.0))
    for name in ("hd", "hd95", "hd95_max", "assd", "masd"):
        assert scores[name] == pytest.approx(math.sqrt(154), abs=1e-12)
    assert scores["dice"] == scores["iou"] == scores["nsd"] == 0.0


def test_one_voxel_against_a_line_of_20():
    # R is one voxel, P a line of 20 that starts on it. D1 = 0..19, D2 = (0). Pool = 0, 0, 1, ..., 19 (21
    # values): position 0.95 * 20 = 19 -> the value 18 exactly... sorted pool index 19 holds 18. D1 alone:
    # position 0.95 * 19 = 18.05 -> 18 + 0.05. Means: pool 190/21, directed (9.5 + 0) / 2.
    reference, prediction = np.zeros((3, 3, 24), np.uint8), np.zeros((3, 3, 24), np.uint8)
    reference[1, 1, 2] = 1
    prediction[1, 1, 2:22] = 1
    scores = score(reference, prediction)
    assert scores["hd"] == 19.0
    assert scores["hd95"] == pytest.approx(18.0, abs=1e-12)
    assert scores["hd95_max"] == pytest.approx(18.05, abs=1e-12)
    assert scores["assd"] == pytest.approx(190 / 21, abs=1e-12)
    assert scores["masd"] == pytest.approx(4.75, abs=1e-12)


def test_a_mask_that_fills_the_array_has_its_outer_layer_as_boundary():
    full = np.ones((5, 5, 5), np.uint8)
    assert int(boundary(full.astype(bool)).sum()) == 125 - 27
    centre = np.zeros((5, 5, 5), np.uint8)
    centre[2, 2, 2] = 1
    # From the centre voxel the nearest of the outer layer is 2 away; from the corners it is sqrt(12).
    scores = score(full, centre)
    assert scores["hd"] == pytest.approx(math.sqrt(12), abs=1e-12)
    # D1 has one value (2); nearest value of D2 is 2 as well, so masd's first half is 2.
    assert scores["masd"] > 2.0


def test_a_sheet_of_one_voxel_is_all_boundary():
    sheet = np.zeros((7, 6, 5), np.uint8)
    sheet[3] = 1
    moved = np.zeros((7, 6, 5), np.uint8)
    moved[5] = 1
    scores = score(sheet, moved, (1.5, 1, 1))
    assert int(boundary(sheet.astype(bool)).sum()) == 30
    for name in ("hd", "hd95", "hd95_max", "assd", "masd"):
        assert scores[name] == 3.0


def test_diagonal_contact_keeps_both_cubes_whole_boundary():
    # Two 2^3 cubes that touch in a corner: all 16 voxels are boundary voxels (faces count, corners do not).
    mask = cube((6, 6, 6), (1, 1, 1), 2) | cube((6, 6, 6), (3, 3, 3), 2)
    assert int(boundary(mask.astype(bool)).sum()) == 16


def test_a_shell_around_a_shell():
    # Box surfaces of 3^3 and 7^3 about the same centre, as hollow shells of one voxel: from each of the 26
    # inner voxels the outer shell is 2 away along an axis (face, edge and corner voxels alike have an axis
    # that leads out).
    inner, outer = cube((9, 9, 9), (3, 3, 3), 3), cube((9, 9, 9), (1, 1, 1), 7)
    inner[4, 4, 4] = 0
    outer[2:7, 2:7, 2:7] = 0
    scores = score(outer, inner)
    assert scores["hd"] == pytest.approx(math.sqrt(12), abs=1e-12)  # corner to corner: 2 steps on each axis
    # D1 = 26 times 2; D2: offset beyond the inner box is 2 on 1, 2 or 3 axes for faces (6 * 9), edges and
    # corners; every outer voxel has per axis an offset max(|d| - 1, 0) with |d| <= 3 and at least one |d| =
    # 3.
    counts = {}
    for z in range(-3, 4):
        for y in range(-3, 4):
            for x in range(-3, 4):
                if max(abs(z), abs(y), abs(x)) == 3:
                    steps = tuple(max(abs(v) - 1, 0) for v in (z, y, x))
                    distance = math.sqrt(sum(v * v for v in steps))
                    counts[distance] = counts.get(distance, 0) + 1
    total = sum(counts.values())
    assert total == 343 - 125
    expected = (26 * 2 + sum(d * n for d, n in counts.items())) / (26 + total)
    assert scores["assd"] == pytest.approx(expected, abs=1e-12)
