"""Against the field: medpy to the bit, MONAI to its float32."""

import numpy as np
import pytest
from scipy import ndimage

from segbench.metrics import evaluate_case
from segbench.metrics.selfcheck import medpy_scores, monai_scores

GRIDS = [1.0, 0.5, 0.1, 0.3, 0.79, 3.75, 2.2]


def pairs(count, seed):
    """Smooth blobs on anisotropic grids, some with an island."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        shape = tuple(rng.integers(3, 20, 3))
        sigma, cut = rng.uniform(0.3, 2.0), rng.uniform(0.3, 0.9)
        reference, prediction = (
            (f > np.quantile(f, cut)).astype(np.uint8)
            for f in (ndimage.gaussian_filter(rng.random(shape), sigma) for _ in range(2))
        )
        if rng.random() < 0.2:
            prediction[-1, -1, -1] = 1
        spacing = tuple(rng.choice(GRIDS, 3)) if rng.random() < 0.5 else tuple(rng.uniform(0.1, 4.0, 3))
        if reference.any() and prediction.any():
            made += 1
            yield reference, prediction, tuple(float(s) for s in spacing)


def both(pair, theirs):
    reference, prediction, spacing = pair
    ours = evaluate_case(
        reference, prediction, spacing_mm=spacing, regions={"it": (1,)}, nsd_tolerance_mm=1.0
    )["it"]
    return ours, theirs(reference, prediction, spacing, 1.0)


@pytest.mark.ci
def test_equal_to_medpy_to_the_bit():
    pytest.importorskip("medpy")
    for pair in pairs(220, 0):
        ours, theirs = both(pair, medpy_scores())
        for name in ("dice", "iou", "precision", "recall", "hd", "hd95", "hd95_max", "nsd"):
            assert ours[name] == theirs[name], (name, pair[2])
        for name in ("assd", "masd"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-12)


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")
@pytest.mark.filterwarnings("error::FutureWarning")
def test_equal_to_monai_within_its_float32():
    pytest.importorskip("monai")
    for pair in pairs(40, 1):
        ours, theirs = both(pair, monai_scores())
        for name in ("dice", "iou", "hd", "hd95_max", "assd", "nsd"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), (name, pair[2])


def released_scores(prediction, reference):
    """What ge-xing/SegMamba-V2's 5_compute_metrics.py does for one region, written from its description."""
    from medpy.metric import binary

    if prediction.sum() > 0 and reference.sum() > 0:
        return binary.dc(prediction, reference), binary.hd95(prediction, reference, voxelspacing=(1, 1, 1))
    return 0.0, 50


def test_the_release_profile_reproduces_the_released_scripts():
    pytest.importorskip("medpy")
    regions = {"TC": (1, 3), "WT": (1, 2, 3), "ET": (3,)}
    rng = np.random.default_rng(2)
    for _ in range(40):
        field = [ndimage.gaussian_filter(rng.random((9, 14, 12)), 1.5) for _ in range(2)]
        reference, prediction = (
            np.digitize(f, np.quantile(f, [0.5, 0.8, 0.95])).astype(np.uint8) for f in field
        )
        for array in (reference, prediction):
            if rng.random() < 0.3:
                array[array == 3] = 0
        found = evaluate_case(
            reference, prediction, spacing_mm=(1, 1, 1), regions=regions, metrics=["dice", "hd95"],
            empty_policy="paper",
        )  # fmt: skip
        for name, labels in regions.items():
            expected = released_scores(np.isin(prediction, labels), np.isin(reference, labels))
            assert (found[name]["dice"], found[name]["hd95"]) == expected
