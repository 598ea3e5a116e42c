"""Thinning against scikit-image, clDice by hand, airway scores against a literal script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import skeletonize

from segbench.metrics.airways.scores import evaluate_airway, largest_piece
from segbench.metrics.airways.skeleton import cldice, thin

ONE = (1.0, 1.0, 1.0)


def blob(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), float(rng.uniform(0.5, 2.5)))
    return noise > float(rng.uniform(-0.1, 0.2))


def tree(seed: int, size: int = 40) -> np.ndarray:
    """A branching tube."""
    rng = np.random.default_rng(seed)
    volume = np.zeros((size, size, size), dtype=bool)

    def grow(at: np.ndarray, direction: np.ndarray, radius: float, depth: int) -> None:
        for _ in range(int(size / 5)):
            at = at + direction
            z, y, x = np.rint(at).astype(int)
            if not all(2 < v < size - 3 for v in (z, y, x)):
                return
            r = int(np.ceil(radius))
            zz, yy, xx = np.mgrid[-r : r + 1, -r : r + 1, -r : r + 1]
            ball = zz**2 + yy**2 + xx**2 <= radius**2
            volume[z - r : z + r + 1, y - r : y + r + 1, x - r : x + r + 1] |= ball
        if depth:
            for _ in range(2):
                turn = direction + rng.normal(0, 0.6, 3)
                grow(at, turn / np.linalg.norm(turn), max(1.0, radius * 0.8), depth - 1)

    grow(np.array([4.0, size / 2, size / 2]), np.array([1.0, 0, 0]), 2.0, 3)
    return volume


@pytest.mark.parametrize("seed", range(12))
def test_thinning_equals_scikit_image_on_blobs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(10):
        mask = blob(rng, tuple(rng.integers(1, 24, 3)))
        assert np.array_equal(thin(mask), skeletonize(mask, method="lee") > 0)


@pytest.mark.parametrize("seed", range(4))
def test_thinning_equals_scikit_image_on_trees(seed: int) -> None:
    mask = tree(seed)
    assert np.array_equal(thin(mask), skeletonize(mask, method="lee") > 0)


def test_the_plain_loop_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [blob(np.random.default_rng(seed), (9, 10, 8)) for seed in range(6)]
    compiled = [thin(mask) for mask in masks]
    monkeypatch.setenv("SEGBENCH_NO_NUMBA", "1")
    assert all(np.array_equal(thin(m), c) for m, c in zip(masks, compiled, strict=True))


def test_thinning_leaves_its_input_alone_and_takes_any_layout() -> None:
    mask = tree(1)
    frozen = np.asfortranarray(mask)
    frozen.flags.writeable = False
    assert np.array_equal(thin(frozen), thin(mask.astype(np.uint16) * 7))
    assert not thin(np.zeros((3, 4, 5))).any()
    with pytest.raises(ValueError, match="three axes"):
        thin(np.zeros((3, 3)))


def test_cldice_by_hand() -> None:
    # Two lines of ten voxels along x; the second is shifted by five: each skeleton is the line itself, and
    # half of each lies in the other: precision = sensitivity = 1/2, their harmonic mean is 1/2.
    a, b = np.zeros((3, 3, 20)), np.zeros((3, 3, 20))
    a[1, 1, 0:10] = 1
    b[1, 1, 5:15] = 1
    assert cldice(a, b) == 0.5
    assert cldice(a, a) == 1.0
    c = np.zeros_like(a)
    c[1, 1, 15:20] = 1
    assert cldice(a, c) == 0.0


def script(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Section by section as the definition reads, on the whole array, with scikit-image."""
    faces, every = ndimage.generate_binary_structure(3, 1), np.ones((3, 3, 3))
    guess = largest_piece(guess)
    s = skeletonize(truth, method="lee") > 0
    g = ndimage.binary_fill_holes(largest_piece(truth))
    sg = skeletonize(g, method="lee") > 0
    near = ndimage.convolve(sg.astype(int), np.ones((3, 3, 3), int), mode="constant")
    pieces, n = ndimage.label(sg & (near <= 3), every)
    kept = [i for i in range(1, n + 1) if (pieces == i).sum() >= 5]
    label = np.zeros(truth.shape, int)
    for number, i in enumerate(kept, start=1):
        label[pieces == i] = number
    index = ndimage.distance_transform_edt(label == 0, return_distances=False, return_indices=True)
    branch = np.where(g, label[tuple(index)], 0)
    detected = 0
    for number in range(1, len(kept) + 1):
        mine = s & (branch == number)
        if mine.any() and (mine & guess).sum() >= 0.8 * mine.sum():
            detected += 1
    assert faces.sum() == 7
    both = (truth & guess).sum()
    return {
        "iou": both / (truth | guess).sum(),
        "dlr": (s & guess).sum() / s.sum(),
        "dbr": detected / len(kept),
        "precision": both / guess.sum(),
        "leakage": (guess & ~truth).sum() / truth.sum(),
        "amr": 1 - both / truth.sum(),
        "branches": len(kept),
        "branches_detected": detected,
        "skeleton_voxels": s.sum(),
    }


@pytest.mark.parametrize("seed", range(5))
def test_airway_equals_the_script(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = tree(seed)
    guess = truth & (ndimage.gaussian_filter(rng.standard_normal(truth.shape), 3) > -0.03)
    guess |= ndimage.binary_dilation(truth) & (rng.random(truth.shape) < 0.05)
    # the crop keeps two voxels of background around both trees, as the whole array does here
    assert dict(evaluate_airway(truth, guess, spacing_mm=ONE)) == pytest.approx(
        script(truth, guess), abs=1e-12
    )


def test_a_perfect_tree_scores_one() -> None:
    truth = tree(2)
    truth[1, 1, 1:4] = True  # a piece of its own: aiib2023 cannot reach 1 in dlr, `tree` can
    perfect = evaluate_airway(truth, truth, spacing_mm=ONE, variant="tree")
    assert [perfect[k] for k in ("iou", "dlr", "dbr", "precision", "leakage", "amr")] == [1, 1, 1, 1, 0, 0]
    assert evaluate_airway(truth, truth, spacing_mm=ONE)["dlr"] < 1


def test_empties() -> None:
    truth, nothing = tree(0), np.zeros((40, 40, 40), bool)
    missed = evaluate_airway(truth, nothing, spacing_mm=ONE)
    assert [missed[k] for k in ("iou", "dlr", "dbr", "precision", "leakage", "amr")] == [0, 0, 0, 0, 0, 1]
    assert missed["branches"] > 3
    invented = evaluate_airway(nothing, truth, spacing_mm=ONE)
    assert np.isnan(invented["leakage"])
    assert invented["amr"] == 1
    right = evaluate_airway(nothing, nothing, spacing_mm=ONE)
    assert [right[k] for k in ("iou", "dlr", "dbr", "precision", "leakage", "amr")] == [1, 1, 1, 1, 0, 0]


@pytest.mark.real_data
@pytest.mark.slow
def test_five_teams_on_one_scan(real_data: Path) -> None:
    from segbench.volumes import read_label_map

    folder = real_data / "airway_multi_team" / "ATM_305_0000"
    teams = {path.name: read_label_map(path) for path in sorted(folder.glob("*.nii.gz"))}
    assert len(teams) == 5
    reference = teams["timi.nii.gz"]
    assert np.array_equal(thin(reference.array), skeletonize(reference.array > 0, method="lee") > 0)
    for name, team in teams.items():
        scores = evaluate_airway(reference.array, team.array, spacing_mm=reference.spacing_mm, variant="tree")
        assert scores["branches"] > 150
        if name == "timi.nii.gz":
            assert scores["dlr"] == scores["dbr"] == scores["iou"] == 1
        else:
            assert 0.6 < scores["dlr"] < 1
